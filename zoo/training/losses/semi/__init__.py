"""Ways to learn from images without labels, one file each."""
