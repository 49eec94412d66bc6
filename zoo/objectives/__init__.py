"""What is minimised. Each file holds one kind of objective; the loop knows none of them by name."""
