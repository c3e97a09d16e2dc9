"""Dialects of calls that are sent while they run."""
