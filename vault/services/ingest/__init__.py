"""A recording while it is open: from its first byte to its manifest."""
