"""Until when a recorder's token may import: the retention of imports counts from the calls' true starts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tokens", sa.Column("imports_until", sa.BigInteger(), nullable=True))
