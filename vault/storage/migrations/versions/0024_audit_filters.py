"""Indexes of the audit trail by target, by actor and by time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_audit_tenant", "audit", ["tenant", "seq"])
    op.create_index(
        "ix_audit_target",
        "audit",
        ["target", "at", "seq"],
        sqlite_where=sa.text("target IS NOT NULL"),
        postgresql_where=sa.text("target IS NOT NULL"),
    )
    op.create_index("ix_audit_actor", "audit", ["actor", "at", "seq"])
    op.create_index("ix_audit_tenant_at", "audit", ["tenant", "at", "seq", "event"])
    op.create_index("ix_audit_at", "audit", ["at", "seq", "event"])
