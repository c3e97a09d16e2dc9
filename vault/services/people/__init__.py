"""Tokens and people: who is let in, who was refused, who decides."""
