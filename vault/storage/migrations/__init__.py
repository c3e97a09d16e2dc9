"""Alembic revisions of the catalog, shipped inside the package and driven by vault.storage.catalog.schema."""
