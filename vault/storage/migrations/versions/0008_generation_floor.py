"""The generation below which no leaf is reserved and no recording begins; a rotation of the keyring raises it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sweep_floor", sa.Column("generation", sa.BigInteger(), nullable=True))
