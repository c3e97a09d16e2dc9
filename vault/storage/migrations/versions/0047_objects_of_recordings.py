"""The list of a recording's deleted objects is in its row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("recordings", sa.Column("objects", sa.LargeBinary(), nullable=True))
    if op.get_context().dialect.name == "postgresql":
        # Mostly digests, which do not compress.
        op.execute("ALTER TABLE recordings ALTER COLUMN objects SET STORAGE EXTERNAL")
