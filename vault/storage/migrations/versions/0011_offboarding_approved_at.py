"""When the end of a contract was approved: the export window counts from the later of approval and end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_tenants = sa.table("tenants", sa.column("id"), sa.column("offboard_approved_by"), sa.column("offboard_approved_at"))
_audit = sa.table(
    "audit", sa.column("target"), sa.column("event"), sa.column("outcome"), sa.column("detail"), sa.column("at")
)


def upgrade() -> None:
    op.add_column("tenants", sa.Column("offboard_approved_at", sa.BigInteger(), nullable=True))
    # The audit trail has the time of every approval. Without an entry the tenant is not dropped.
    approved = sa.select(sa.func.max(_audit.c.at)).where(
        _audit.c.target == _tenants.c.id,
        _audit.c.event == "admin.config",
        _audit.c.outcome == "ok",
        _audit.c.detail.like('%"action":"offboarding approved"%'),
    )
    op.execute(
        sa.update(_tenants)
        .where(_tenants.c.offboard_approved_by.is_not(None))
        .values(offboard_approved_at=approved.scalar_subquery())
    )
