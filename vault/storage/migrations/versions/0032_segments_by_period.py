"""A place for the rows of objects with the period of their audio, on PostgreSQL a partition a period.

The next revision copies the rows; this one makes an older version refuse the catalog meanwhile.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    parted = context.get_context().dialect.name == "postgresql"
    key = ("recording", "number", "audio_period") if parted else ("recording", "number")
    op.create_table(
        "segments_by_period",
        sa.Column("recording", sa.LargeBinary(16), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.LargeBinary(16), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("object_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("audio_period", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["recording"], ["recordings.id"], name=op.f("fk_segments_recording")),
        # PostgreSQL has one name space for the indexes of all tables.
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_segments_by_period" if parted else "pk_segments")),
        postgresql_partition_by="RANGE (audio_period)",
    )
