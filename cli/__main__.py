"""`python -m cli` is `callvault`."""

from cli.main import run

run()
