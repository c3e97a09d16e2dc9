"""Object stores on this machine, and what every object store has in common."""
