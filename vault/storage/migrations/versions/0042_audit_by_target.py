"""The index of the trail by target has the end of the target and no time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None


def upgrade() -> None:
    has_target = sa.text("target IS NOT NULL")
    op.drop_index("ix_audit_target", "audit")
    op.create_index(
        "ix_audit_target",
        "audit",
        [sa.text("substr('       ' || target, length(target) + 1)"), "seq"],
        sqlite_where=has_target,
        postgresql_where=has_target,
    )
