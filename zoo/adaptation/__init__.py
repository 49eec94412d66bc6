"""One adaptation from names to a finished run folder: prepare, execute, finish."""
