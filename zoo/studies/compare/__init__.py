"""Backbones side by side: the same data, recipe and budget for each, and which differences are more than noise."""
