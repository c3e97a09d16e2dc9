"""The object store, and a keyring replica, in an S3 bucket."""
