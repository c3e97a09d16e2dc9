"""The protocols over which recorders send audio."""
