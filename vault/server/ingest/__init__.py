"""Ways in for recorders."""
