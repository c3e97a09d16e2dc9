"""A hold says how many recordings it has, and up to where their objects say whether they are held.

Every hold's labels are set once more: an earlier version forgot those that a crash interrupted, and left those of a
released hold.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

_COUNTS = """
UPDATE holds SET
 held = (SELECT count(*) FROM hold_recordings WHERE hold = holds.id AND NOT too_late),
 late = (SELECT count(*) FROM hold_recordings WHERE hold = holds.id AND too_late)
"""
_FROM_THE_START = (
    "UPDATE holds SET labelled_through = CAST('' AS BLOB)",
    "UPDATE holds SET labelled_through = CAST('' AS BYTEA)",
)


def upgrade() -> None:
    for name in ("held", "late"):
        op.add_column("holds", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(_COUNTS)
    op.add_column("holds", sa.Column("labelled_through", sa.LargeBinary()))
    on_postgresql = context.get_context().dialect.name == "postgresql"
    op.execute(_FROM_THE_START[on_postgresql])
    unlabelled = sa.text("labelled_through IS NOT NULL")
    op.create_index("ix_holds_unlabelled", "holds", ["id"], sqlite_where=unlabelled, postgresql_where=unlabelled)
    op.add_column("hold_recordings", sa.Column("label_again", sa.Boolean()))
    again = sa.text("label_again IS NOT NULL")
    op.create_index(
        "ix_hold_recordings_label_again",
        "hold_recordings",
        ["recording", "hold"],
        sqlite_where=again,
        postgresql_where=again,
    )
