"""Tokens and people: authentication, authorisation, refusals, and decisions by two people."""
