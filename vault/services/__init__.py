"""What the vault does, one verb a module."""
