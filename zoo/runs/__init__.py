"""One run folder: made, resumed, finished, used, reported, published."""
