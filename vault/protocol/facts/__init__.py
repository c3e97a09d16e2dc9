"""Parsers for facts about a call: parties, JSON metadata and SIPREC."""
