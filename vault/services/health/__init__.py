"""Whether a vault works, for monitors and for the other nodes."""
