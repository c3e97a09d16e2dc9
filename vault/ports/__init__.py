"""What the services need from the outside world. The docstrings are contracts, which tests/contract checks."""
