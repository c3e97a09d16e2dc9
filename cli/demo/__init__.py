"""`callvault demo`: the whole promise, shown on real calls and proven step by step."""
