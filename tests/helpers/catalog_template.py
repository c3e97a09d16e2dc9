"""New catalogs on SQLite without the time of each migration: the migrations run once; every catalog gets the result."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from vault.storage.catalog import schema

migrate = schema.upgrade
"""The real thing."""


@contextmanager
def transaction(path: Path | None = None) -> Iterator[sa.Connection]:
    """Yield a transaction of the SQLite database there, or of an empty one that goes with it; nothing stays open."""
    engine = sa.create_engine("sqlite://" if path is None else sa.URL.create("sqlite", database=str(path)))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@cache
def _statements() -> list[str]:
    with transaction() as connection:
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
