"""Holds, the flags that place them, and the alerts that follow."""
