"""Which backbone should transfer best, from frozen features alone: scores, their uncertainty, the order."""
