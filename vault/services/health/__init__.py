"""Whether a vault works, as a monitor and the other nodes see it."""
