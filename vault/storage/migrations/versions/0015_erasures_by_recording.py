"""An index of the erasures that name a recording."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_erasure_recordings_recording", "erasure_recordings", ["recording", "erasure"])
