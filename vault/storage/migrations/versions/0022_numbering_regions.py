"""The country of a tenant's numbers without a country code; until now it was the United Kingdom for all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenants", sa.Column("numbering_region", sa.Text(), nullable=False, server_default="GB"))
