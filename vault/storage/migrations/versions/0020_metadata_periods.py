"""How long metadata is kept, as the text it was chosen with; what was a number of seconds stays as long."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_tenants = sa.table(
    "tenants",
    *(sa.column(name) for name in ("id", "metadata_retention", "metadata_retention_seconds")),
    *(sa.column(name) for name in ("metadata_before", "metadata_changed")),
)
_requests = sa.table(
    "policy_requests", *(sa.column(name) for name in ("id", "metadata_retention", "retention_seconds"))
)


def upgrade() -> None:
    """Rows of tenants and of requests are few: each is read and written."""
    op.add_column("tenants", sa.Column("metadata_retention", sa.Text(), nullable=True))
    op.add_column("policy_requests", sa.Column("metadata_retention", sa.Text(), nullable=True))
    connection = op.get_bind()
    for row in connection.execute(sa.select(_tenants)).all():
        changed = None if row.metadata_changed is None else json.loads(row.metadata_changed)
        if changed is not None:
            changed["retention"] = _text(changed.pop("seconds"))
        connection.execute(
            sa.update(_tenants)
            .where(_tenants.c.id == row.id)
            .values(
                metadata_retention=_text(row.metadata_retention_seconds),
                metadata_before=json.dumps([[month, _text(kept)] for month, kept in json.loads(row.metadata_before)]),
                metadata_changed=None if changed is None else json.dumps(changed),
            )
        )
    for row in connection.execute(sa.select(_requests)).all():
        period = _text(row.retention_seconds)
        connection.execute(sa.update(_requests).where(_requests.c.id == row.id).values(metadata_retention=period))
    op.drop_column("tenants", "metadata_retention_seconds")
    op.drop_column("policy_requests", "retention_seconds")


def _text(seconds: Any) -> str | None:
    """Return the text of so many seconds, in the units of the configuration, largest first."""
    if seconds is None:
        return None
    rest, text = round(float(seconds) * 1000), ""
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"
