"""Root-key providers: they hold the keys that open the keyring, and destroy them."""
