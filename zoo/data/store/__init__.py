"""Images decoded once, in memory-mapped files."""
