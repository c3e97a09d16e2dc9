"""Protocols of uploads over HTTP."""
