"""Helpers that know nothing about machine learning: files, limits, text, durations."""
