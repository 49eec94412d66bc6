"""Batch-norm statistics: which mode each group has, re-estimated, across processes."""
