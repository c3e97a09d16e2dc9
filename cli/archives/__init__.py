"""Whole archives of recordings: into the vault with `callvault import`, out of it with `callvault export`."""
