"""The catalog on SQLAlchemy Core: SQLite now, nothing in schema or queries that PostgreSQL cannot do."""

from vault.storage.catalog.catalog import SqlCatalog, open_catalog

__all__ = ["SqlCatalog", "open_catalog"]
