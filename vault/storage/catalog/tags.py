"""Tags of the catalog's pages: they tell what has changed since they were read, and no row is read for it.

A page is the rows of one table whose keys begin alike: some 17 minutes of recordings, 4,096 entries of the audit trail,
or the leaf counters of 32 periods. Triggers give a page a new random tag in the transaction that changes one of its
rows, whatever statement does. No tag ever comes back, so equal tags mean equal rows, also after an older copy of the
database was put back. The base is the tag of every page that nobody changed since the triggers were made.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from vault.storage.catalog.tables import metadata, page_tags

_DIGITS: Final = 7
"""Hex digits of an id's 48-bit millisecond: 2^20 ms, which is 17.5 minutes."""
_ENTRIES: Final = 4096
_PERIODS: Final = 32
_TAG_BYTES: Final = 16
_BASE: Final = {"of_table": "", "page": ""}
_PREFIX: Final = "tag_pages"
_EVENTS: Final = (("insert", "NEW"), ("update", "NEW"), ("delete", "OLD"))


@dataclass(frozen=True, slots=True)
class Ids:
    """Pages by ids of 16 bytes."""

    column: str

    def of(self, key: bytes) -> str:
        """Return the page of a key; pages sort as keys do."""
        return key.hex()[:_DIGITS]

    def first(self, page: str) -> bytes:
        """Return a key that none of the page's is below."""
        return bytes.fromhex(page + "0" * (len(page) % 2))

    def sqlite(self, row: str) -> str:
        """Return the page of a row that is called NEW or OLD, in SQL."""
        return f"lower(substr(hex(substr({row}.{self.column}, 1, 4)), 1, {_DIGITS}))"

    def postgresql(self) -> str:
        """Return the page of the one row there is, in SQL."""
        return f"left(encode(substring({self.column} FROM 1 FOR 4), 'hex'), {_DIGITS})"


@dataclass(frozen=True, slots=True)
class Texts:
    """Pages by ids with a prefix."""

    column: str
    prefix: str

    @property
    def _width(self) -> int:
        return len(self.prefix) + 1 + _DIGITS

    def of(self, key: str) -> str:
        """Return the page of a key; pages sort as keys do."""
        return key[: self._width]

    def first(self, page: str) -> str:
        """Return a key that none of the page's is below."""
        return page

    def sqlite(self, row: str) -> str:
        """Return the page of a row that is called NEW or OLD, in SQL."""
        return f"substr({row}.{self.column}, 1, {self._width})"

    def postgresql(self) -> str:
        """Return the page of the one row there is, in SQL."""
        return f"left({self.column}, {self._width})"


@dataclass(frozen=True, slots=True)
class Numbers:
    """Pages by numbers that count up from 0, `each` of them a page."""

    column: str
    each: int | None = None
    """None for entries of the audit trail."""

    @property
    def _width(self) -> int:
        return self.each or _ENTRIES

    def of(self, key: int) -> str:
        """Return the page of a key; pages sort as keys do."""
        return f"{key // self._width:012d}"

    def first(self, page: str) -> int:
        """Return a key that none of the page's is below."""
        return int(page) * self._width

    def sqlite(self, row: str) -> str:
        """Return the page of a row that is called NEW or OLD, in SQL."""
        return f"printf('%012d', {row}.{self.column} / {self._width})"

    def postgresql(self) -> str:
        """Return the page of the one row there is, in SQL."""
        return f"lpad(({self.column} / {self._width})::text, 12, '0')"


PAGED: Final[Mapping[str, Ids | Texts | Numbers]] = {
    "recordings": Ids("id"),
    "segments": Ids("recording"),
    "hold_recordings": Texts("hold", "hold"),
    "shreds": Texts("id", "shr"),
    "shred_kept": Texts("shred", "shr"),
    "erasure_recordings": Texts("erasure", "era"),
    "certificate_batches": Texts("id", "bat"),
    "certificate_tenants": Ids("batch"),
    "certificate_forms": Texts("batch", "bat"),
    "certificates": Texts("id", "cert"),
    "leaf_counters": Numbers("period", _PERIODS),
    "audit": Numbers("seq"),
}
"""The tables that grow with the vault; the others are small, and have no tags."""


def ensure(connection: sa.Connection) -> None:
    """Make the triggers, if they are not those that this code knows; every page then counts as changed."""
    if are_kept(connection):
        return
    drop(connection)
    for statement in _statements(connection.dialect.name):
        connection.exec_driver_sql(statement)
    connection.execute(sa.delete(page_tags))
    connection.execute(sa.insert(page_tags), {**_BASE, "tag": secrets.token_bytes(_TAG_BYTES)})


def drop(connection: sa.Connection) -> None:
    """Drop the triggers that are there, so that tables can be made anew under them."""
    for name, _ in _found(connection):
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            connection.exec_driver_sql(f"DROP FUNCTION {name} CASCADE")


def are_kept(connection: sa.Connection) -> bool:
    """Tell whether every change of every page gives it a new tag."""
    return _found(connection) == set(_wanted(connection.dialect.name))


def touch(connection: sa.Connection, table: str, rows: str) -> None:
    """Give new tags to the pages of PostgreSQL's table `rows`, a partition of `table` that is about to be dropped."""
    connection.exec_driver_sql(_touching(table, rows))


def _found(connection: sa.Connection) -> set[tuple[str, str]]:
    """Return the triggers, or on PostgreSQL their functions with what is wrong about the triggers, and their text."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND substr(name, 1, 9) = 'tag_pages'"
        )
        return {(name, text) for name, text in rows}
    rows = connection.exec_driver_sql(
        "SELECT p.proname, p.prosrc, array_to_string(array(SELECT t.tgname || ' ' || c.relname FROM pg_trigger t"
        " JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgfoid = p.oid AND t.tgenabled = 'O' ORDER BY 1), ', ')"
        " FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace AND left(p.proname, 9) = 'tag_pages'"
    )
    return {(name, f"{text} {triggers}") for name, text, triggers in rows}


def _wanted(dialect: str) -> Iterator[tuple[str, str]]:
    if dialect == "sqlite":
        yield from _sqlite()
        return
    for table in PAGED:
        triggers = sorted(f"{_PREFIX}_{table}_{event} {table}" for event, _ in _EVENTS)
        yield f"{_PREFIX}_{table}", f"{_body(table)} {', '.join(triggers)}"


def _statements(dialect: str) -> Iterator[str]:
    if dialect == "sqlite":
        yield from (text for _, text in _sqlite())
        return
    for table in PAGED:
        name = f"{_PREFIX}_{table}"
        yield f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $text${_body(table)}$text$"
        for event, rows in _EVENTS:
            yield (
                f"CREATE TRIGGER {name}_{event} AFTER {event.upper()} ON {table} REFERENCING {rows} TABLE AS touched"
                f" FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
            )


def _sqlite() -> Iterator[tuple[str, str]]:
    for table, paging in PAGED.items():
        for event, row in _EVENTS:
            name = f"{_PREFIX}_{table}_{event}"
            text = (
                f"CREATE TRIGGER {name} AFTER {event.upper()} ON {table} BEGIN INSERT INTO page_tags"  # noqa: S608 - names
                f" (of_table, page, tag) VALUES ('{table}', {paging.sqlite(row)}, randomblob({_TAG_BYTES}))"
                " ON CONFLICT (of_table, page) DO UPDATE SET tag = excluded.tag; END"
            )
            yield name, text


def _body(table: str) -> str:
    return f"BEGIN {_touching(table, 'touched')}; RETURN NULL; END"


def _touching(table: str, rows: str) -> str:
    return (
        f"INSERT INTO page_tags (of_table, page, tag) SELECT '{table}', t.page, uuid_send(gen_random_uuid())"  # noqa: S608 - names
        f" FROM (SELECT DISTINCT {PAGED[table].postgresql()} AS page FROM {rows}) AS t"
        " ON CONFLICT (of_table, page) DO UPDATE SET tag = excluded.tag"
    )


assert PAGED.keys() <= metadata.tables.keys()
