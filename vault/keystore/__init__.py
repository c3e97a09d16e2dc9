"""The keyring and the root-key providers under it."""
