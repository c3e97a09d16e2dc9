"""Tenants and what is set for each."""
