"""Metadata retention as the text it was set with; values in seconds keep their length.

Numbers in a tenant's JSON stay until that row is next written; readers take them as seconds.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def upgrade() -> None:
    _as_text("tenants", "metadata_retention_seconds")
    _as_text("policy_requests", "retention_seconds")


def _as_text(table: str, seconds: str) -> None:
    """Replace the column of seconds by one of text; the database computes it."""
    op.add_column(table, sa.Column("metadata_retention", sa.Text(), nullable=True))
    rows = sa.table(table, sa.column("metadata_retention", sa.Text), sa.column(seconds, sa.Double))
    op.execute(sa.update(rows).where(rows.c[seconds].is_not(None)).values(metadata_retention=_text(rows.c[seconds])))
    op.drop_column(table, seconds)


def _text(seconds: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """Return the text of so many seconds, in the units of the configuration, largest first."""
    rest: sa.ColumnElement[int] = sa.cast(sa.func.round(seconds * 1000), sa.BigInteger)
    text: sa.ColumnElement[str] = sa.literal("", sa.Text)
    for unit, size in _UNITS:
        count = rest // size
        text = text + sa.case((count > 0, sa.cast(count, sa.Text) + unit), else_="")
        rest = rest % size
    return text
