"""Overrides belong to one tenant's guard or to the clock guard, and store what tripped."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sweep_overrides", sa.Column("tenant", sa.Text(), nullable=True))
    op.add_column("sweep_overrides", sa.Column("stopped", sa.Text(), nullable=False, server_default=""))
    op.add_column("sweep_overrides", sa.Column("early", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("sweep_overrides", sa.Column("rejected_by", sa.Text(), nullable=True))
