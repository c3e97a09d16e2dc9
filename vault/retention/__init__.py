"""Retention arithmetic and precedence: pure functions over values."""
