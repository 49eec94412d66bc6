"""Several runs: rank, compare, stack, soup, align-auto."""
