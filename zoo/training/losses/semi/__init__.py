"""Semi-supervised methods, one file each."""
