"""Indexes of the trail that only grow at ends keep no room for entries in between; their present pages stay."""

from __future__ import annotations

from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        for index in ("pk_audit", "ix_audit_tenant"):
            op.execute(f"ALTER INDEX {index} SET (fillfactor = 100)")
