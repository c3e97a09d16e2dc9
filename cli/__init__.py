"""The `callvault` command."""
