"""Train, val and test splits: given by the data, or cut."""
