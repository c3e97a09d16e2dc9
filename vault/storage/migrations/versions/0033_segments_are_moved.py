"""The rows of objects, copied to where they have the period of their audio, digests as bytes, and no name.

A page is a stretch of recordings. SQLite keeps the old pages of its file for later rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from vault.errors import IntegrityError
from vault.storage.catalog import partitions
from vault.storage.migrations import pages

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_PAGE = 5_000
_LAST = sa.text("SELECT max(id) FROM (SELECT id FROM recordings WHERE id > :after ORDER BY id LIMIT :page) AS p")
_COUNT = sa.text("SELECT count(*) FROM recordings WHERE id > :after AND id <= :last")
_PERIODS = sa.text("SELECT DISTINCT audio_period FROM recordings WHERE id > :after AND id <= :last")
_COLUMNS = "recording, number, attempt, start, length, object_bytes, sha256, audio_period"
_ROWS = "FROM recordings AS r JOIN segments AS s ON s.recording = r.id"
_PAGE_OF = "WHERE r.id > :after AND r.id <= :last"
# Of each database: hex to bytes, bytes to hex, and a number of six digits.
_WORDS = {
    "sqlite": ("unhex({})", "lower(hex({}))", "printf('%06d', {})"),
    "postgresql": ("decode({}, 'hex')", "encode({}, 'hex')", "lpad(CAST({} AS text), 6, '0')"),
}


def _copy(dialect: str) -> str:
    unhex = _WORDS[dialect][0]
    return (
        f"INSERT INTO segments_by_period ({_COLUMNS})"
        f" SELECT s.recording, s.number, {unhex.format('s.attempt')}, s.start, s.length, s.object_bytes,"
        f" {unhex.format('s.sha256')}, r.audio_period {_ROWS}"
    )


def _misnamed(dialect: str) -> str:
    """Return the query for objects whose names do not follow from the rest of their rows, which no version wrote."""
    _, in_hex, padded = _WORDS[dialect]
    prefix = f"'v1/' || r.tenant || '/' || CAST(r.audio_period AS text) || '/rec_' || {in_hex.format('r.id')} || '/'"
    name = f"CASE WHEN s.number = -1 THEN 'manifest' ELSE {padded.format('s.number')} || '-' || s.attempt || '.seg' END"
    return f"SELECT count(*) {_ROWS} {_PAGE_OF} AND s.name <> {prefix} || {name}"


def count(connection: sa.Connection) -> int:
    found: int = connection.execute(sa.text("SELECT count(*) FROM recordings")).scalar_one()
    return found


def page(connection: sa.Connection, after: bytes) -> tuple[bytes, int] | None:
    last = connection.execute(_LAST, {"after": after, "page": _PAGE}).scalar()
    if last is None:
        return None
    place, dialect = {"after": after, "last": last}, connection.dialect.name
    if dialect == "sqlite":
        # The function of the database itself is younger than the oldest one that is supported.
        connection.connection.dbapi_connection.create_function("unhex", 1, bytes.fromhex, deterministic=True)  # type: ignore[union-attr]
    if connection.execute(sa.text(_misnamed(dialect)), place).scalar_one():
        raise IntegrityError("the catalog names an object otherwise than its place gives; its rows were not moved")
    partitions.make(connection, connection.execute(_PERIODS, place).scalars().all(), of="segments_by_period")
    connection.execute(sa.text(f"{_copy(dialect)} {_PAGE_OF} ORDER BY s.recording, s.number"), place)
    return bytes(last), connection.execute(_COUNT, place).scalar_one()


def upgrade() -> None:
    if context.is_offline_mode():
        op.execute(_copy(context.get_context().dialect.name))
    else:
        pages.finish(op.get_bind(), revision, page)
    parted = context.get_context().dialect.name == "postgresql"
    if not parted:
        # Else SQLite would write zeros over all of the old table, and keep them in its log until the commit.
        op.execute("PRAGMA secure_delete = OFF")
    op.drop_table("segments")
    op.rename_table("segments_by_period", "segments")
    if parted:
        op.execute("ALTER INDEX pk_segments_by_period RENAME TO pk_segments")
    else:
        op.execute("PRAGMA secure_delete = ON")
