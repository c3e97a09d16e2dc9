"""What every other subject asks about recordings: search, facts, plaintext ranges and leaves."""
