"""The S3 subset for recorders."""
