"""A tenant's retention as the text it was chosen with: months and years of the calendar are no number of seconds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_tenants = sa.table("tenants", sa.column("id"), sa.column("retention"), sa.column("retention_seconds"))
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def upgrade() -> None:
    op.add_column("tenants", sa.Column("retention", sa.Text(), nullable=True))
    chosen = sa.select(_tenants.c.id, _tenants.c.retention_seconds).where(_tenants.c.retention_seconds.is_not(None))
    for tenant, seconds in op.get_bind().execute(chosen).all():
        op.execute(sa.update(_tenants).where(_tenants.c.id == tenant).values(retention=_text(seconds)))
    op.drop_column("tenants", "retention_seconds")


def _text(seconds: float) -> str:
    rest, terms = round(seconds * 1000), []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            terms.append(f"{count}{unit}")
    return "".join(terms) or "0s"
