"""Train, validation and test parts: given by the data, or cut from it."""
