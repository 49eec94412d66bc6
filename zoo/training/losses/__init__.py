"""Training objectives, one file each; the loop knows none of them by name."""
