"""All that resuming needs: session, position, checkpoints, the metrics log, signals."""
