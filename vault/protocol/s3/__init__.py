"""The subset of S3 that recorders use."""
