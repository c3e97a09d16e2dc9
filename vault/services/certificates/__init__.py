"""Issuing deletion certificates."""
