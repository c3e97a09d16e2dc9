"""New catalogs without what each does alike: migrations on SQLite run once, and a statement is compiled once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from vault.storage.catalog import schema, tags

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
def _statements(_tagged: int) -> list[str]:
    with transaction() as connection:
        migrate(connection)
        script = connection.connection.driver_connection.iterdump()
        return [line for line in script if line not in ("BEGIN TRANSACTION;", "COMMIT;")]


def upgrade(connection: sa.Connection) -> None:
    """Do what `schema.upgrade` does."""
    if connection.dialect.name != "sqlite" or sa.inspect(connection).get_table_names():
        migrate(connection)
        return
    for statement in _statements(tags._ENTRIES):
        connection.exec_driver_sql(statement)


def compiled_once(engine_at: Callable[..., AsyncEngine]) -> Callable[..., AsyncEngine]:
    """Have all engines of one kind share what the first of them has compiled."""
    compiled: dict[object, tuple[sa.Dialect, dict[Any, Any]]] = {}

    def made(place: object, **how: object) -> AsyncEngine:
        engine = engine_at(place, **how)
        own = engine.sync_engine
        dialect, cache = compiled.setdefault((place is None, *how.items()), (own.dialect, {}))
        # It knows what it talks to once its own engine has connected.
        if dialect is own.dialect or dialect.server_version_info is not None:
            own.dialect = dialect
            own.update_execution_options(compiled_cache=cache)
        return engine

    return made
