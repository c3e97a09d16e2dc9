"""Which token issued a token: of two people who decide together, neither may have issued the other's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tokens", sa.Column("issued_by", sa.Text(), nullable=True))
