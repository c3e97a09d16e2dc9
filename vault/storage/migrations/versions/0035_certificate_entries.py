"""The certificates of a batch are one value in its row; those that were issued before keep a row each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("certificate_batches", sa.Column("status", sa.Text(), nullable=True))
    op.add_column("certificate_batches", sa.Column("entries", sa.LargeBinary(), nullable=True))
    if op.get_context().dialect.name == "postgresql":
        # Mostly digests, which do not compress.
        op.execute("ALTER TABLE certificate_batches ALTER COLUMN entries SET STORAGE EXTERNAL")
    op.create_table(
        "certificate_tenants",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("batch", sa.LargeBinary(16), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "batch", name="pk_certificate_tenants"),
        sqlite_with_rowid=False,
    )
