"""Exporters: one file for each format, found by its name."""
