"""A small Hub on 127.0.0.1, made of folders, for tests that need one."""
