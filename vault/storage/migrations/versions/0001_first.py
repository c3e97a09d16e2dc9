"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_FINISHED = sa.text("state != 'open' AND state != 'shredded'")
_UNDELETED = sa.text("undeleted_since IS NOT NULL")


def upgrade() -> None:
    _recordings()
    _holds()
    _shreds()
    _admin()
    # Every transaction compares and swaps these rows, so they must exist before the first one.
    op.execute(sa.text("INSERT INTO sweep_floor (id, period) VALUES (1, NULL)"))
    genesis = sa.table(
        "audit_head", sa.column("id", sa.Integer), sa.column("seq", sa.BigInteger), sa.column("sha256", sa.LargeBinary)
    )
    op.execute(genesis.insert().values(id=1, seq=0, sha256=bytes(32)))


def _recordings() -> None:
    op.create_table(
        "recordings",
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("call_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("audio_period", sa.BigInteger(), nullable=False),
        sa.Column("audio_generation", sa.BigInteger(), nullable=False),
        sa.Column("audio_leaf", sa.BigInteger(), nullable=False),
        sa.Column("metadata_period", sa.BigInteger(), nullable=False),
        sa.Column("metadata_generation", sa.BigInteger(), nullable=False),
        sa.Column("metadata_leaf", sa.BigInteger(), nullable=False),
        sa.Column("container", sa.Text(), nullable=False),
        sa.Column("codec", sa.Text(), nullable=False),
        sa.Column("rate", sa.Integer(), nullable=False),
        sa.Column("channels", sa.Integer(), nullable=False),
        sa.Column("channel_map", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("retain_until", sa.BigInteger(), nullable=False),
        sa.Column("retention_class", sa.Text(), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sealed_facts", sa.LargeBinary(), nullable=False),
        sa.Column("certificate_id", sa.Text(), nullable=True),
        sa.Column("undeleted_since", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_recordings"),
        sa.UniqueConstraint("tenant", "call_key", name="uq_recordings_tenant_call_key"),
    )
    op.create_index(
        "ix_recordings_due",
        "recordings",
        ["id", "audio_period"],
        unique=False,
        sqlite_where=_FINISHED,
        postgresql_where=_FINISHED,
    )
    op.create_index(
        "ix_recordings_retain",
        "recordings",
        ["retain_until", "id"],
        unique=False,
        sqlite_where=_FINISHED,
        postgresql_where=_FINISHED,
    )
    op.create_index("ix_recordings_state", "recordings", ["state", "id"], unique=False)
    op.create_index("ix_recordings_tenant", "recordings", ["tenant", "id", "started_at"], unique=False)
    op.create_index(
        "ix_recordings_undeleted",
        "recordings",
        ["id"],
        unique=False,
        sqlite_where=_UNDELETED,
        postgresql_where=_UNDELETED,
    )
    op.create_table(
        "segments",
        sa.Column("recording", sa.LargeBinary(length=16), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("object_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["recording"], ["recordings.id"], name="fk_segments_recording"),
        sa.PrimaryKeyConstraint("recording", "number", name="pk_segments"),
    )
    op.create_table(
        "leaf_counters",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("period", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("next_leaf", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "part", "period", "generation", name="pk_leaf_counters"),
    )


def _holds() -> None:
    op.create_table(
        "holds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("matter", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("authority", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("review_at", sa.BigInteger(), nullable=False),
        sa.Column("release_requested_by", sa.Text(), nullable=True),
        sa.Column("release_reason", sa.Text(), nullable=True),
        sa.Column("released_by", sa.Text(), nullable=True),
        sa.Column("released_at", sa.BigInteger(), nullable=True),
        sa.Column("grace_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
    )
    op.create_index("ix_holds_created_at", "holds", ["created_at", "id"], unique=False)
    op.create_index("ix_holds_tenant", "holds", ["tenant", "created_at"], unique=False)
    op.create_table(
        "hold_recordings",
        sa.Column("hold", sa.Text(), nullable=False),
        sa.Column("recording", sa.LargeBinary(length=16), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("too_late", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["hold"], ["holds.id"], name="fk_hold_recordings_hold"),
        sa.ForeignKeyConstraint(["recording"], ["recordings.id"], name="fk_hold_recordings_recording"),
        sa.PrimaryKeyConstraint("hold", "recording", name="pk_hold_recordings"),
    )
    op.create_index("ix_hold_recordings_recording", "hold_recordings", ["recording", "hold"], unique=False)


def _shreds() -> None:
    op.create_table(
        "shreds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("intended_at", sa.BigInteger(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("due_through", sa.BigInteger(), nullable=True),
        sa.Column("plan", sa.LargeBinary(), nullable=False),
        sa.Column("receipt", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_shreds"),
    )
    op.create_index("ix_shreds_finished_at", "shreds", ["finished_at", "intended_at"], unique=False)
    op.create_table(
        "shred_kept",
        sa.Column("shred", sa.Text(), nullable=False),
        sa.Column("recording", sa.LargeBinary(length=16), nullable=False),
        sa.ForeignKeyConstraint(["recording"], ["recordings.id"], name="fk_shred_kept_recording"),
        sa.ForeignKeyConstraint(["shred"], ["shreds.id"], name="fk_shred_kept_shred"),
        sa.PrimaryKeyConstraint("shred", "recording", name="pk_shred_kept"),
    )
    op.create_table(
        "sweep_floor",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("period", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sweep_floor"),
    )
    op.create_table(
        "certificates",
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
    )
    op.create_index("ix_certificates_tenant", "certificates", ["tenant", "id"], unique=False)
    op.create_table(
        "sweep_overrides",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("through", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sweep_overrides"),
    )


def _admin() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("controller", sa.Text(), nullable=False),
        sa.Column("contact", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("retention_seconds", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
    )
    op.create_index("ix_tokens_tenant", "tokens", ["tenant"], unique=False)
    op.create_table(
        "settings",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_settings"),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("previous_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )
