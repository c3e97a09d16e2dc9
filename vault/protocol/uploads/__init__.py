"""Dialects of uploads over HTTP."""
