"""Which retention the metadata of past months was agreed with: a change is for calls to come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What a tenant has now held for every month before this.
    op.add_column("tenants", sa.Column("metadata_before", sa.Text(), nullable=False, server_default="[]"))
