"""Ways to make features of two domains alike, one file each."""
