"""The indexes of what goes when, and of what is due, have the columns that lists, counts and previews filter by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None

_FINISHED = "state != 'open' AND state != 'shredded'"
_WIDER = {
    "ix_recordings_due": ["audio_period", "id", "tenant", "created_at", "retain_until", "audio_generation"],
    "ix_recordings_retain": ["retain_until", "id", "started_at"],
    "ix_recordings_tenant_retain": ["tenant", "retain_until", "id", "started_at", "stored_bytes", "lasted_ms"],
}


def upgrade() -> None:
    finished = sa.text(_FINISHED)
    for name, columns in _WIDER.items():
        op.drop_index(name, "recordings")
        op.create_index(name, "recordings", columns, sqlite_where=finished, postgresql_where=finished)
    ahead = sa.text(f"started_at > created_at AND {_FINISHED}")
    op.create_index(
        "ix_recordings_ahead_retain",
        "recordings",
        ["retain_until", "id"],
        sqlite_where=ahead,
        postgresql_where=ahead,
    )
