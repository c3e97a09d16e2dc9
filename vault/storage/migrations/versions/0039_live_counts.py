"""How many live recordings of a tenant were captured on each day is kept, not counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

_LIVE = "state != 'shredded' OR metadata_certificate_id IS NULL AND length(sealed_facts) > 0"


def upgrade() -> None:
    live = sa.text(_LIVE)
    op.create_index(
        "ix_recordings_live", "recordings", ["tenant", "created_at"], sqlite_where=live, postgresql_where=live
    )
    op.create_table(
        "live_counts",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "day", name="pk_live_counts"),
    )
    # The index has both columns, so this reads no row.
    op.execute(
        "INSERT INTO live_counts (tenant, day, n) SELECT tenant, created_at / 86400000000, count(*)"  # noqa: S608
        f" FROM recordings WHERE {_LIVE} GROUP BY tenant, created_at / 86400000000"
    )
