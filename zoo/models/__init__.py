"""Backbones: lookup, building, weights, saving, layer groups, freezing, plugins."""
