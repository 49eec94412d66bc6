"""The training engine: a visible loop, its schedules, metrics and checkpoints. It emits events and prints nothing."""
