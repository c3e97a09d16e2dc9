"""A tenant's erasures and holds are found by an index that has them in the order of their list."""

from __future__ import annotations

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_erasures_tenant", "erasures", ["tenant", "id"])
    op.drop_index("ix_holds_tenant", "holds")
    op.create_index("ix_holds_tenant", "holds", ["tenant", "created_at", "id"])
