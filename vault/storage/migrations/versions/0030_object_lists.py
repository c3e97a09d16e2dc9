"""Lists of deleted objects, a row a recording.

The server moves the rows of objects that they replace, a page at a time.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "object_lists",
        sa.Column("recording", sa.LargeBinary(16), nullable=False),
        sa.Column("objects", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["recording"], ["recordings.id"], name=op.f("fk_object_lists_recording")),
        sa.PrimaryKeyConstraint("recording", name=op.f("pk_object_lists")),
    )
