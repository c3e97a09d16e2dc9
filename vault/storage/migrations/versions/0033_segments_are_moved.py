"""The rows of objects, copied to where they have the period of their audio.

A page is a stretch of recordings. SQLite keeps the old pages of its file for later rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

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
_COPY = (
    "INSERT INTO segments_by_period"
    " (recording, number, attempt, name, start, length, object_bytes, sha256, audio_period)"
    " SELECT s.recording, s.number, s.attempt, s.name, s.start, s.length, s.object_bytes, s.sha256, r.audio_period"
    " FROM recordings AS r JOIN segments AS s ON s.recording = r.id"
)
_COPY_PAGE = sa.text(f"{_COPY} WHERE r.id > :after AND r.id <= :last ORDER BY s.recording, s.number")


def count(connection: sa.Connection) -> int:
    found: int = connection.execute(sa.text("SELECT count(*) FROM recordings")).scalar_one()
    return found


def page(connection: sa.Connection, after: bytes) -> tuple[bytes, int] | None:
    last = connection.execute(_LAST, {"after": after, "page": _PAGE}).scalar()
    if last is None:
        return None
    place = {"after": after, "last": last}
    partitions.make(connection, connection.execute(_PERIODS, place).scalars().all(), of="segments_by_period")
    connection.execute(_COPY_PAGE, place)
    return bytes(last), connection.execute(_COUNT, place).scalar_one()


def upgrade() -> None:
    if context.is_offline_mode():
        op.execute(_COPY)
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
