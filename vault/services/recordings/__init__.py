"""What other subjects ask about recordings: search, facts, plaintext ranges and leaves."""
