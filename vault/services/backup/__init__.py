"""Backups: making, verifying, pruning and restoring them."""
