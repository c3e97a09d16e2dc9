"""Changes of how long existing audio is kept, and which of them is in force."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("policy_requests", sa.Column("retention", sa.Text(), nullable=True))
    op.add_column("tenants", sa.Column("retention_changed", sa.Text(), nullable=True))
    op.add_column("tenants", sa.Column("retention_changed_through", sa.BigInteger(), nullable=True))
