"""Upload dialects as sans-I/O state machines."""
