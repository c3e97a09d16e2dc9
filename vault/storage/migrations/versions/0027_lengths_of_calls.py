"""How long a call lasted, and indexes by length, size, state and expiry.

Earlier calls get a length where samples can be counted; their gaps and pauses are not included.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_SAMPLES = """
UPDATE recordings SET lasted_ms = stored_bytes * 1000
    / (rate * channels * CASE WHEN codec IN ('pcmu', 'pcma') THEN 1 ELSE 2 END)
WHERE ended_at IS NOT NULL AND container = 'raw' AND codec <> 'stream' AND rate > 0 AND channels > 0
"""
_AS_IT_WAS_SPOKEN = """
UPDATE recordings SET lasted_ms = (ended_at - started_at) / 1000
WHERE lasted_ms IS NULL AND ended_at >= started_at AND started_at >= created_at - 60000000
"""


def upgrade() -> None:
    op.add_column("recordings", sa.Column("lasted_ms", sa.BigInteger(), nullable=True))
    op.execute(_SAMPLES)
    op.execute(_AS_IT_WAS_SPOKEN)
    ended = sa.text("ended_at IS NOT NULL")
    op.create_index("ix_recordings_tenant_state", "recordings", ["tenant", "state", "id", "started_at"])
    op.create_index(
        "ix_recordings_measures",
        "recordings",
        ["tenant", "id", "stored_bytes", "lasted_ms"],
        sqlite_where=ended,
        postgresql_where=ended,
    )
    finished = sa.text("state != 'open' AND state != 'shredded'")
    op.create_index(
        "ix_recordings_tenant_retain",
        "recordings",
        ["tenant", "retain_until", "id"],
        sqlite_where=finished,
        postgresql_where=finished,
    )
