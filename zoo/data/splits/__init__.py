"""Train, validation and test splits: as the data has them, or cut from it."""
