"""The format of a recording's first bytes, where it is not the declared one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("recordings", sa.Column("content", sa.Text(), nullable=True))
    op.add_column("recordings", sa.Column("misdeclared_by", sa.Text(), nullable=True))
    there = sa.text("content IS NOT NULL")
    op.create_index("ix_recordings_content", "recordings", ["created_at"], sqlite_where=there, postgresql_where=there)
