"""Which sizes and durations a tenant's calls have is kept for each day on which they began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None

_DAY = 86_400_000_000
# A time before the epoch is of the day that it is in, not of the next.
_OF = f"(started_at - (started_at % {_DAY} + {_DAY}) % {_DAY}) / {_DAY}"


def upgrade() -> None:
    numbers = [
        sa.Column(name, sa.BigInteger(), nullable=name.endswith("ms"))
        for name in ("least_bytes", "most_bytes", "least_ms", "most_ms")
    ]
    op.create_table(
        "measured_days",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        *numbers,
        sa.PrimaryKeyConstraint("tenant", "day", name="pk_measured_days"),
    )
    op.execute(
        "INSERT INTO measured_days (tenant, day, least_bytes, most_bytes, least_ms, most_ms)"  # noqa: S608
        f" SELECT tenant, {_OF}, min(stored_bytes), max(stored_bytes), min(lasted_ms), max(lasted_ms)"
        f" FROM recordings WHERE ended_at IS NOT NULL GROUP BY tenant, {_OF}"
    )
