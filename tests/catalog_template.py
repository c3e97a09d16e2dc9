"""New catalogs on SQLite without the time of each migration: the migrations run once; every catalog gets the result."""

from functools import cache

import sqlalchemy as sa

from vault.storage.catalog import schema

migrate = schema.upgrade
"""The real thing."""


@cache
def _statements() -> list[str]:
    with sa.create_engine("sqlite://").begin() as connection:
        migrate(connection)
        script = connection.connection.driver_connection.iterdump()
        return [line for line in script if line not in ("BEGIN TRANSACTION;", "COMMIT;")]


def upgrade(connection: sa.Connection) -> None:
    """Do what `schema.upgrade` does."""
    if connection.dialect.name != "sqlite" or sa.inspect(connection).get_table_names():
        migrate(connection)
        return
    for statement in _statements():
        connection.exec_driver_sql(statement)
