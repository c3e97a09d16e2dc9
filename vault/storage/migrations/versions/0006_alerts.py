"""Flags: the webhook of a tenant's safeguarding lead, and the outbox of alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_WAITING = sa.text("delivered_at IS NULL")


def upgrade() -> None:
    op.add_column("tenants", sa.Column("safeguarding_webhook", sa.Text(), nullable=True))
    op.create_table(
        "alerts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("recording", sa.LargeBinary(length=16), nullable=False),
        sa.Column("hold", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["recording"], ["recordings.id"], name="fk_alerts_recording"),
        sa.ForeignKeyConstraint(["hold"], ["holds.id"], name="fk_alerts_hold"),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
        sa.UniqueConstraint("hold", name="uq_alerts_hold"),
    )
    op.create_index("ix_alerts_recording", "alerts", ["recording"], unique=False)
    op.create_index(
        "ix_alerts_waiting",
        "alerts",
        ["next_at", "id"],
        unique=False,
        sqlite_where=_WAITING,
        postgresql_where=_WAITING,
    )
