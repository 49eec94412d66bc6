"""The recipe (the choices) and the plan (what will run); no tensors."""
