"""What was asked for (the recipe), and what it comes to (the plan); no tensors."""
