"""One index serves a tenant's list, filtered by size and duration or not."""

from __future__ import annotations

from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_recordings_tenant", "recordings")
    op.drop_index("ix_recordings_measures", "recordings")
    op.create_index("ix_recordings_measures", "recordings", ["tenant", "started_at", "id", "stored_bytes", "lasted_ms"])
