"""What the services need from the outside world. The docstrings are contracts; tests/contract checks every adapter."""
