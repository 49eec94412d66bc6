"""Cached features of the frozen part of a network."""
