"""A tag of each page of the large tables: a backup reads and writes what has changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The triggers that keep the tags are made after the last migration: one that makes a table anew drops them.
    op.create_table(
        "page_tags",
        sa.Column("of_table", sa.Text(), nullable=False),
        sa.Column("page", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("tag", sa.LargeBinary(16), nullable=False),
        sa.PrimaryKeyConstraint("of_table", "page", name=op.f("pk_page_tags")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_certificate_tenants_batch", "certificate_tenants", ["batch"])
