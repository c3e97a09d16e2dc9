"""Notes of open recordings, sealed, and whether a tenant keeps the keys that callers press."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "recording_notes",
        sa.Column("recording", sa.LargeBinary(length=16), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["recording"], ["recordings.id"], name="fk_recording_notes_recording"),
        sa.PrimaryKeyConstraint("recording", "seq", name="pk_recording_notes"),
    )
    op.add_column("tenants", sa.Column("keep_dtmf", sa.Boolean(), nullable=False, server_default=sa.false()))
