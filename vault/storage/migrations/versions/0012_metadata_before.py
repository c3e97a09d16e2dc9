"""The metadata retention agreed for past months: a change applies to later calls only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A tenant's present retention applied to every earlier month.
    op.add_column("tenants", sa.Column("metadata_before", sa.Text(), nullable=False, server_default="[]"))
