"""Installed plugins: found, read, imported with care, installed, checked, written anew."""
