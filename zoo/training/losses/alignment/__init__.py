"""Domain alignment methods, one file each."""
