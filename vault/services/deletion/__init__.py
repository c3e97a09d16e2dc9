"""Ending recordings: sweeps, erasures, retention changes, and overrides of guards."""
