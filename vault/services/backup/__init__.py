"""Backups: making, looking after and restoring them."""
