"""Connections, below the requests: listeners, limits, workers, TLS."""
