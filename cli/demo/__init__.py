"""`callvault demo`: the product shown on real calls and checked step by step."""
