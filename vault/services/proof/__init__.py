"""Attacks on the vault's own promises."""
