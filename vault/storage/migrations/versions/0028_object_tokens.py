"""A token of the object key, by which S3 clients find a recording whose call key differs.

Earlier recordings have none; their recorders find them by the call key, as before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("recordings", sa.Column("object_token", sa.Text(), nullable=True))
    present = sa.text("object_token IS NOT NULL")
    op.create_index(
        "ix_recordings_object_token",
        "recordings",
        ["object_token", "id"],
        unique=False,
        sqlite_where=present,
        postgresql_where=present,
    )
