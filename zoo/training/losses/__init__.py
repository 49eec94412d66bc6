"""Training objectives, one file each; the loop names none of them."""
