"""Stacked models: members, combiner, and the images to fit it on."""
