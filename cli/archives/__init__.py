"""Whole archives of recordings: `callvault import` brings them in, `callvault export` takes them out."""
