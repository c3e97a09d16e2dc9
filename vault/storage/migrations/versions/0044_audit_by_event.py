"""Entries of events that not every recording has are found by event."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None


_FEW = "event NOT IN ('recording.started', 'recording.sealed')"


def upgrade() -> None:
    of_all, few = sa.text(f"{_FEW} AND seq >= 0"), sa.text(_FEW)
    op.create_index("ix_audit_event", "audit", ["event", "seq"], sqlite_where=of_all, postgresql_where=of_all)
    op.create_index(
        "ix_audit_tenant_event", "audit", ["tenant", "event", "seq"], sqlite_where=few, postgresql_where=few
    )
