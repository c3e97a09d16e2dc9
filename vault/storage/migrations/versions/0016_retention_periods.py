"""A tenant's retention as the text it was set with: calendar months and years are no fixed number of seconds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_tenants = sa.table("tenants", sa.column("retention", sa.Text), sa.column("retention_seconds", sa.Double))
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def upgrade() -> None:
    op.add_column("tenants", sa.Column("retention", sa.Text(), nullable=True))
    chosen = _tenants.c.retention_seconds.is_not(None)
    op.execute(sa.update(_tenants).where(chosen).values(retention=_text()))
    # The configuration never accepted less than a millisecond.
    op.execute(sa.update(_tenants).where(_tenants.c.retention == "").values(retention="0s"))
    op.drop_column("tenants", "retention_seconds")


def _text() -> sa.ColumnElement[str]:
    """Return the text of the seconds, in the units of the configuration, largest first; the database computes it."""
    rest: sa.ColumnElement[int] = sa.cast(sa.func.round(_tenants.c.retention_seconds * 1000), sa.BigInteger)
    text: sa.ColumnElement[str] = sa.literal("", sa.Text)
    for unit, size in _UNITS:
        count = rest // size
        text = text + sa.case((count > 0, sa.cast(count, sa.Text) + unit), else_="")
        rest = rest % size
    return text
