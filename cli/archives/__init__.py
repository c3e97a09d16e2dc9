"""Whole archives of recordings: `callvault import` and `callvault export`."""
