"""Object stores on this machine, and the rules that all object stores share."""
