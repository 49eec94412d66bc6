"""Plugins: discovery, manifests, imports, installation and the files of a new one."""
