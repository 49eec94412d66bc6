"""From stored images to batches on a device: order, workers, random draws, transforms."""
