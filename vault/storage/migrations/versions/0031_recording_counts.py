"""How many recordings a tenant has in each state is kept, not counted; starts ahead of receipt are found in order."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "recording_counts",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "state", name="pk_recording_counts"),
    )
    op.execute(
        "INSERT INTO recording_counts (tenant, state, n) SELECT tenant, state, count(*) FROM recordings"
        " GROUP BY tenant, state"
    )
    op.drop_index("ix_recordings_ahead", "recordings")
    ahead = sa.text("started_at > created_at")
    op.create_index(
        "ix_recordings_ahead", "recordings", ["started_at", "id"], sqlite_where=ahead, postgresql_where=ahead
    )
