"""Adapters of the object store, catalog and journal ports."""
