"""The hours of the entries there are; the indexes of the trail by time go, because hours find a time.

A page is a stretch of entries.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from vault.storage.migrations import pages

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

_PAGE = 50_000
_LAST = sa.text("SELECT max(seq) FROM (SELECT seq FROM audit WHERE seq > :after ORDER BY seq LIMIT :page) AS p")
_COUNT = sa.text("SELECT count(*) FROM audit WHERE seq > :after AND seq <= :last")
_HOUR = "at / 3600000000"
_FIRST = f"SELECT seq, {_HOUR} AS hour, lag({_HOUR}) OVER (ORDER BY seq) AS earlier FROM audit"  # noqa: S608 - no values
_COPY = "INSERT INTO audit_hours (first, hour) SELECT seq, hour FROM ({first}) AS p WHERE coalesce(earlier, -1) <> hour"
# The last entry of the page before tells whether the first one of this page is of another hour.
_WITH_BEFORE = f"{_FIRST} WHERE seq >= :after AND seq <= :last"


def count(connection: sa.Connection) -> int:
    found: int = connection.execute(sa.text("SELECT count(*) FROM audit")).scalar_one()
    return found


def page(connection: sa.Connection, after: bytes) -> tuple[bytes, int] | None:
    place = {"after": int.from_bytes(after)}
    last = connection.execute(_LAST, {**place, "page": _PAGE}).scalar()
    if last is None:
        return None
    place["last"] = last
    connection.execute(sa.text(_COPY.format(first=_WITH_BEFORE) + " AND seq > :after"), place)
    return int(last).to_bytes(8), connection.execute(_COUNT, place).scalar_one()


def upgrade() -> None:
    if context.is_offline_mode():
        op.execute(_COPY.format(first=_FIRST))
    else:
        pages.finish(op.get_bind(), revision, page)
    op.drop_index("ix_audit_tenant_at", "audit")
    op.drop_index("ix_audit_at", "audit")
