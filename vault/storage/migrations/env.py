"""Alembic's environment: runs inside a connection it is given, or prints SQL for a named dialect."""

from __future__ import annotations

from alembic import context

from vault.storage.catalog.tables import metadata

connection = context.config.attributes.get("connection")
if context.is_offline_mode():
    context.configure(dialect_name=context.config.attributes["dialect"], target_metadata=metadata, literal_binds=True)
else:
    # SQLite's DDL is transactional once the driver leaves transactions alone, so a migration lands whole or not at all.
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)

with context.begin_transaction():
    context.run_migrations()
