"""Lists come by the start of the call, and each filter walks an index in that order; what is due is found by period."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_ENDED = sa.text("ended_at IS NOT NULL")
_FINISHED = sa.text("state != 'open' AND state != 'shredded'")
_AHEAD = sa.text("started_at > created_at")
_REPLACED = ("tenant", "state", "tenant_state", "measures", "due", "caller_token", "called_token")


def _index(name: str, columns: list[str], where: sa.TextClause | None = None) -> None:
    op.create_index(f"ix_recordings_{name}", "recordings", columns, sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    for name in _REPLACED:
        op.drop_index(f"ix_recordings_{name}", "recordings")
    _index("started", ["started_at", "id"])
    _index("tenant", ["tenant", "started_at", "id"])
    _index("state", ["state", "started_at", "id"])
    _index("tenant_state", ["tenant", "state", "started_at", "id"])
    _index("measures", ["tenant", "started_at", "id", "stored_bytes", "lasted_ms"], _ENDED)
    _index("due", ["audio_period", "id"], _FINISHED)
    _index("ahead", ["id"], _AHEAD)
    for token in ("caller_token", "called_token"):
        _index(token, [token, "started_at", "id"], sa.text(f"{token} IS NOT NULL"))
