"""Callvault: call recordings sealed on arrival, kept as promised, shredded provably."""

__version__ = "0.1.0"
