"""Metadata with its own retention: blind tokens in place of call keys, erasures, the end of contracts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_HAS_METADATA = sa.text("metadata_certificate_id IS NULL")

# The table as it was: SQLite rebuilds it, and a script printed without a database cannot look it up.
_CERTIFICATES = sa.Table(
    "certificates",
    sa.MetaData(),
    sa.Column("id", sa.Text(), nullable=False),
    sa.Column("recording", sa.LargeBinary(length=16), nullable=False),
    sa.Column("tenant", sa.Text(), nullable=False),
    sa.Column("status", sa.Text(), nullable=False),
    sa.Column("supersedes", sa.Text(), nullable=True),
    sa.Column("issued_at", sa.BigInteger(), nullable=False),
    sa.Column("jws", sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(["recording"], ["recordings.id"], name="fk_certificates_recording"),
    sa.PrimaryKeyConstraint("id", name="pk_certificates"),
    sa.UniqueConstraint("recording", "status", name="uq_certificates_recording_status"),
    sa.Index("ix_certificates_tenant", "tenant", "id"),
)


def upgrade() -> None:
    _recordings()
    _erasures()
    op.add_column("tenants", sa.Column("metadata_retention_seconds", sa.Double(), nullable=True))
    op.add_column("tenants", sa.Column("contract_end", sa.BigInteger(), nullable=True))
    for column in ("offboard_requested_by", "offboard_approved_by"):
        op.add_column("tenants", sa.Column(column, sa.Text(), nullable=True))
    with op.batch_alter_table("certificates", copy_from=_CERTIFICATES) as table:
        table.add_column(sa.Column("parts", sa.Text(), nullable=False, server_default="audio"))
        table.drop_constraint("uq_certificates_recording_status", type_="unique")
        table.create_unique_constraint("uq_certificates_recording_status_parts", ["recording", "status", "parts"])


def _recordings() -> None:
    # Clear call keys cannot be turned into tokens, because a migration has no keys; they are removed.
    identity = "encode(id, 'hex')" if op.get_context().dialect.name == "postgresql" else "lower(hex(id))"
    op.execute(sa.text(f"UPDATE recordings SET call_key = 'rec_' || {identity}"))  # noqa: S608  # no input
    op.alter_column("recordings", "call_key", new_column_name="call_token")
    for column in ("caller_token", "called_token", "metadata_certificate_id"):
        op.add_column("recordings", sa.Column(column, sa.Text(), nullable=True))
    op.add_column("recordings", sa.Column("unconfirmed_since", sa.BigInteger(), nullable=True))
    unconfirmed = sa.text("unconfirmed_since IS NOT NULL")
    op.create_index(
        "ix_recordings_unconfirmed",
        "recordings",
        ["id"],
        unique=False,
        sqlite_where=unconfirmed,
        postgresql_where=unconfirmed,
    )
    op.create_index(
        "ix_recordings_metadata",
        "recordings",
        ["tenant", "id", "metadata_period"],
        unique=False,
        sqlite_where=_HAS_METADATA,
        postgresql_where=_HAS_METADATA,
    )
    for column in ("caller_token", "called_token"):
        present = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"ix_recordings_{column}",
            "recordings",
            [column, "id"],
            unique=False,
            sqlite_where=present,
            postgresql_where=present,
        )


def _erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("case_reference", sa.Text(), nullable=False),
        sa.Column("queue", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
    )
    op.create_index("ix_erasures_state", "erasures", ["state", "id"], unique=False)
    op.create_table(
        "erasure_recordings",
        sa.Column("erasure", sa.Text(), nullable=False),
        sa.Column("recording", sa.LargeBinary(length=16), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("shred", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["erasure"], ["erasures.id"], name="fk_erasure_recordings_erasure"),
        sa.ForeignKeyConstraint(["recording"], ["recordings.id"], name="fk_erasure_recordings_recording"),
        sa.ForeignKeyConstraint(["shred"], ["shreds.id"], name="fk_erasure_recordings_shred"),
        sa.PrimaryKeyConstraint("erasure", "recording", name="pk_erasure_recordings"),
    )
    op.create_index("ix_erasure_recordings_shred", "erasure_recordings", ["shred", "recording"], unique=False)
