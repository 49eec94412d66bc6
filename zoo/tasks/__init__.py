"""The kinds of task: single-label, multi-label, ordinal, regression."""
