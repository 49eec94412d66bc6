"""Backbones: found, built, loaded, saved, grouped, frozen; plugins."""
