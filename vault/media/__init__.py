"""What audio bytes are, and how they become playable."""
