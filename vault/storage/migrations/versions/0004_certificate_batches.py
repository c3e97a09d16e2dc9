"""Certificates are issued in batches: one signed statement, its leaves, and documents kept in two pieces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# The table as it was: SQLite rebuilds it, and a script printed without a database cannot look it up.
_BEFORE = sa.Table(
    "certificates",
    sa.MetaData(),
    sa.Column("id", sa.Text(), nullable=False),
    sa.Column("recording", sa.LargeBinary(length=16), nullable=False),
    sa.Column("tenant", sa.Text(), nullable=False),
    sa.Column("status", sa.Text(), nullable=False),
    sa.Column("supersedes", sa.Text(), nullable=True),
    sa.Column("issued_at", sa.BigInteger(), nullable=False),
    sa.Column("jws", sa.Text(), nullable=False),
    sa.Column("parts", sa.Text(), nullable=False, server_default="audio"),
    sa.ForeignKeyConstraint(["recording"], ["recordings.id"], name="fk_certificates_recording"),
    sa.PrimaryKeyConstraint("id", name="pk_certificates"),
    sa.UniqueConstraint("recording", "status", "parts", name="uq_certificates_recording_status_parts"),
    sa.Index("ix_certificates_tenant", "tenant", "id"),
)


def upgrade() -> None:
    op.create_table(
        "certificate_batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("leaves", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_certificate_batches"),
    )
    op.create_table(
        "certificate_forms",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_certificate_forms"),
    )
    with op.batch_alter_table("certificates", copy_from=_BEFORE) as table:
        table.alter_column("jws", existing_type=sa.Text(), nullable=True)
        table.add_column(sa.Column("batch", sa.Text(), nullable=True))
        table.add_column(sa.Column("place", sa.Integer(), nullable=True))
        table.add_column(sa.Column("form", sa.LargeBinary(length=32), nullable=True))
        table.add_column(sa.Column("entry", sa.Text(), nullable=True))
        table.create_foreign_key("fk_certificates_batch", "certificate_batches", ["batch"], ["id"])
        table.create_foreign_key("fk_certificates_form", "certificate_forms", ["form"], ["digest"])
    op.create_index("ix_certificates_batch", "certificates", ["batch"], unique=False)
