"""Connections below HTTP requests: listeners, limits, workers, TLS."""
