"""The catalog on SQLAlchemy Core, on SQLite or PostgreSQL."""

from vault.storage.catalog.catalog import SqlCatalog, open_catalog

__all__ = ["SqlCatalog", "open_catalog"]
