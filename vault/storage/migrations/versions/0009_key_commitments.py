"""What a certificate states that is known only when recording begins: key commitments and the policy's period."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Existing rows have none: a migration has no keys and must not guess a period.
    op.add_column("recordings", sa.Column("audio_commitment", sa.LargeBinary(length=32), nullable=True))
    op.add_column("recordings", sa.Column("metadata_commitment", sa.LargeBinary(length=32), nullable=True))
    op.add_column("recordings", sa.Column("retention_period", sa.Text(), nullable=True))
