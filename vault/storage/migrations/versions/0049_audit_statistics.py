"""PostgreSQL learns that the end of a token or a target and the whole find the same entries of the trail.

Else it takes them for independent, expects hardly any entries, and reads and sorts all those of a token for a page.
"""

from __future__ import annotations

from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None

_ENDS = {"actor": "substr(actor, 25, 12)", "target": "substr('       ' || target, length(target) + 1)"}


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        for column, end in _ENDS.items():
            op.execute(f"CREATE STATISTICS audit_{column} (dependencies) ON ({end}), {column} FROM audit")
        op.execute("ANALYZE audit")
