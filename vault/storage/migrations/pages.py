"""Moves of many rows in an upgrade: in pages, each in a transaction that stores how far it came.

A revision that moves many rows has, besides `upgrade`, the functions `count` and `page`. Pages only copy, and only
behind an earlier revision of the same version: an older program refuses the catalog then, and writes to no row that was
copied already. `upgrade` ends with `finish`, and only then drops what was copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

Page = Callable[[sa.Connection, bytes], tuple[bytes, int] | None]
"""Copies one page of rows behind a place, b"" at first; returns its last place and how many rows, None at the end."""

# There from the first page until the last, so a complete schema has no trace of it.
_positions = sa.Table(
    "upgrade_position",
    sa.MetaData(),
    sa.Column("revision", sa.Text, primary_key=True),
    sa.Column("after", sa.LargeBinary, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a revision came."""

    after: bytes
    done: int


def is_half_way(connection: sa.Connection) -> bool:
    """Tell whether an upgrade was interrupted between two pages."""
    return sa.inspect(connection).has_table(_positions.name)


def position(connection: sa.Connection, revision: str) -> Position:
    """Return how far this revision came."""
    if is_half_way(connection):
        found = connection.execute(sa.select(_positions).where(_positions.c.revision == revision)).one_or_none()
        if found is not None:
            return Position(found.after, found.done)
    return Position(b"", 0)


def move(connection: sa.Connection, revision: str, page: Page) -> Position | None:
    """Copy the next page and store the new position, inside the caller's transaction; None if there is no more."""
    before = position(connection, revision)
    moved = page(connection, before.after)
    if moved is None:
        return None
    _positions.create(connection, checkfirst=True)
    after = Position(moved[0], before.done + moved[1])
    connection.execute(sa.delete(_positions))
    connection.execute(sa.insert(_positions), {"revision": revision, "after": after.after, "done": after.done})
    return after


def finish(connection: sa.Connection, revision: str, page: Page) -> None:
    """Copy what is left, and forget the position."""
    after = position(connection, revision).after
    while (moved := page(connection, after)) is not None:
        after = moved[0]
    _positions.drop(connection, checkfirst=True)
