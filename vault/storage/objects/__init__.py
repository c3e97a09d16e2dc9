"""Object stores on this machine, and what all object stores share."""
