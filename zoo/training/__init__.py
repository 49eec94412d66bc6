"""The training engine: the loop, losses, optimizers, checkpoints, automatic choices."""
