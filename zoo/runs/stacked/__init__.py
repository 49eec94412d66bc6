"""A stacked model as a run: its members, what combines them, the images that fit it."""
