"""Root-key providers: where the key lies that opens the keyring, and what destroys it."""
