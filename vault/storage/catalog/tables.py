"""The present schema; `vault/storage/migrations` brings a database to it.

Recording ids are 16 bytes (UUIDv7, so they sort by creation), other ids the text people see. Times are microseconds
since the Unix epoch. Keys and clear personal data of calls are in no column; facts about a call exist only as a sealed
blob.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id = sa.LargeBinary(16)

recordings = sa.Table(
    "recordings",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("call_token", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("state_reason", sa.Text),
    sa.Column("audio_period", sa.BigInteger, nullable=False),
    sa.Column("audio_generation", sa.BigInteger, nullable=False),
    sa.Column("audio_leaf", sa.BigInteger, nullable=False),
    sa.Column("metadata_period", sa.BigInteger, nullable=False),
    sa.Column("metadata_generation", sa.BigInteger, nullable=False),
    sa.Column("metadata_leaf", sa.BigInteger, nullable=False),
    sa.Column("container", sa.Text, nullable=False),
    sa.Column("codec", sa.Text, nullable=False),
    sa.Column("rate", sa.Integer, nullable=False),
    sa.Column("channels", sa.Integer, nullable=False),
    sa.Column("channel_map", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("retain_until", sa.BigInteger, nullable=False),
    sa.Column("retention_class", sa.Text, nullable=False),
    sa.Column("stored_bytes", sa.BigInteger, nullable=False),
    sa.Column("sealed_facts", sa.LargeBinary, nullable=False),
    sa.Column("certificate_id", sa.Text),
    sa.Column("undeleted_since", sa.BigInteger),
    sa.Column("node", sa.Text),
    sa.Column("caller_token", sa.Text),
    sa.Column("called_token", sa.Text),
    sa.Column("metadata_certificate_id", sa.Text),
    sa.Column("unconfirmed_since", sa.BigInteger),
    sa.Column("audio_commitment", sa.LargeBinary(32)),
    sa.Column("metadata_commitment", sa.LargeBinary(32)),
    sa.Column("retention_period", sa.Text),
    sa.Column("object_token", sa.Text),
    # The format of the first bytes, and the token that declared another; both null where they are as declared.
    sa.Column("content", sa.Text),
    sa.Column("misdeclared_by", sa.Text),
    sa.Column("lasted_ms", sa.BigInteger),
    # Of a recording whose objects are certified absent: their list, which replaces its rows in `segments`.
    sa.Column("objects", sa.LargeBinary),
    # The column was once called call_key; renaming it on SQLite kept the constraint's name.
    sa.UniqueConstraint("tenant", "call_token", name="uq_recordings_tenant_call_key"),
)

ROW = tuple(column for column in recordings.columns if column.name != "objects")
"""The columns that make a `Recording`; the list of objects is read by itself."""

# Literals, because a planner matches a partial index only against literals. Inequalities, because for `state IN (...)`
# SQLite would use the index on state and sort every finished row for each page.
IS_OPEN = recordings.c.state == sa.literal_column("'open'")
IS_FINISHED = sa.and_(
    recordings.c.state != sa.literal_column("'open'"), recordings.c.state != sa.literal_column("'shredded'")
)
IS_UNDELETED = recordings.c.undeleted_since.is_not(None)
IS_UNCONFIRMED = recordings.c.unconfirmed_since.is_not(None)
HAS_METADATA = recordings.c.metadata_certificate_id.is_(None)
IS_AHEAD = recordings.c.started_at > recordings.c.created_at
IS_MISDECLARED = recordings.c.content.is_not(None)
# Of such a recording audio or metadata is left. The literals are those of the index.
IS_LIVE = sa.or_(
    recordings.c.state != sa.literal_column("'shredded'"),
    sa.and_(HAS_METADATA, sa.func.length(recordings.c.sealed_facts) > sa.literal_column("0")),
)

# Lists are ordered by the start of the call. For a tenant, a state, both or neither, a page is a range of one index.
_PLACE = (recordings.c.started_at, recordings.c.id)
sa.Index("ix_recordings_started", *_PLACE)
sa.Index("ix_recordings_state", recordings.c.state, *_PLACE)
sa.Index("ix_recordings_tenant_state", recordings.c.tenant, recordings.c.state, *_PLACE)
sa.Index("ix_recordings_ahead", *_PLACE, sqlite_where=IS_AHEAD, postgresql_where=IS_AHEAD)
sa.Index(
    "ix_recordings_due",
    recordings.c.audio_period,
    recordings.c.id,
    # What is due is counted, by cohort too, and its exceptions are found without reading its rows.
    recordings.c.tenant,
    recordings.c.created_at,
    recordings.c.retain_until,
    recordings.c.audio_generation,
    sqlite_where=IS_FINISHED,
    postgresql_where=IS_FINISHED,
)
sa.Index(
    "ix_recordings_retain",
    recordings.c.retain_until,
    recordings.c.id,
    recordings.c.started_at,
    sqlite_where=IS_FINISHED,
    postgresql_where=IS_FINISHED,
)
_IS_AHEAD_AND_FINISHED = sa.and_(IS_AHEAD, IS_FINISHED)
sa.Index(
    "ix_recordings_ahead_retain",
    recordings.c.retain_until,
    recordings.c.id,
    sqlite_where=_IS_AHEAD_AND_FINISHED,
    postgresql_where=_IS_AHEAD_AND_FINISHED,
)
# A tenant's list. Both numbers are included, so a page filtered by them reads the index and not the skipped rows.
sa.Index("ix_recordings_measures", recordings.c.tenant, *_PLACE, recordings.c.stored_bytes, recordings.c.lasted_ms)
sa.Index(
    "ix_recordings_tenant_retain",
    recordings.c.tenant,
    recordings.c.retain_until,
    recordings.c.id,
    recordings.c.started_at,
    recordings.c.stored_bytes,
    recordings.c.lasted_ms,
    sqlite_where=IS_FINISHED,
    postgresql_where=IS_FINISHED,
)
sa.Index("ix_recordings_undeleted", recordings.c.id, sqlite_where=IS_UNDELETED, postgresql_where=IS_UNDELETED)
sa.Index("ix_recordings_unconfirmed", recordings.c.id, sqlite_where=IS_UNCONFIRMED, postgresql_where=IS_UNCONFIRMED)
sa.Index(
    "ix_recordings_metadata",
    recordings.c.tenant,
    recordings.c.id,
    recordings.c.metadata_period,
    sqlite_where=HAS_METADATA,
    postgresql_where=HAS_METADATA,
)
sa.Index("ix_recordings_content", recordings.c.created_at, sqlite_where=IS_MISDECLARED, postgresql_where=IS_MISDECLARED)
for _token, _order in (
    (recordings.c.caller_token, _PLACE),
    (recordings.c.called_token, _PLACE),
    (recordings.c.object_token, (recordings.c.id,)),
):
    _present = _token.is_not(None)
    sa.Index(f"ix_recordings_{_token.name}", _token, *_order, sqlite_where=_present, postgresql_where=_present)

# For a count up to an instant within a day; whole days are counted in `live_counts`.
sa.Index(
    "ix_recordings_live",
    recordings.c.tenant,
    recordings.c.created_at,
    sqlite_where=IS_LIVE,
    postgresql_where=IS_LIVE,
)

# Of each tenant and state, moved with the rows.
recording_counts = sa.Table(
    "recording_counts",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False),
)

# Of each tenant and day of capture (since the epoch, UTC), of recordings that are live; moved with the rows.
live_counts = sa.Table(
    "live_counts",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("n", sa.BigInteger, nullable=False),
)

# Of each tenant and day on which calls began (since the epoch, UTC): within which bounds the recordings that have ended
# are. A bound only ever widens, because such a recording keeps its size and its duration, and its row stays.
measured_days = sa.Table(
    "measured_days",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("least_bytes", sa.BigInteger, nullable=False),
    sa.Column("most_bytes", sa.BigInteger, nullable=False),
    # Null while no duration of that day is known.
    sa.Column("least_ms", sa.BigInteger),
    sa.Column("most_ms", sa.BigInteger),
)

segments = sa.Table(
    "segments",
    metadata,
    sa.Column("recording", _Id, sa.ForeignKey(recordings.c.id), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    # No bytes for the manifest, else 16: with the number it gives the object's name.
    sa.Column("attempt", sa.LargeBinary(16), nullable=False),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("length", sa.BigInteger, nullable=False),
    sa.Column("object_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.LargeBinary(32), nullable=False),
    sa.Column("audio_period", sa.BigInteger, nullable=False),
)
"""On PostgreSQL in partitions by `audio_period`, which is the recording's and part of the primary key there."""

# Open recordings only: a finished one has its notes in its manifest.
recording_notes = sa.Table(
    "recording_notes",
    metadata,
    sa.Column("recording", _Id, sa.ForeignKey(recordings.c.id), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)

nodes = sa.Table(
    "nodes",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
    sa.Column("unstored_bytes", sa.BigInteger, nullable=False),
)

leaf_counters = sa.Table(
    "leaf_counters",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("period", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("generation", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("next_leaf", sa.BigInteger, nullable=False),
)

holds = sa.Table(
    "holds",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("matter", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("authority", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("review_at", sa.BigInteger, nullable=False),
    sa.Column("release_requested_by", sa.Text),
    sa.Column("release_reason", sa.Text),
    sa.Column("released_by", sa.Text),
    sa.Column("released_at", sa.BigInteger),
    sa.Column("grace_until", sa.BigInteger),
    sa.Column("held", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("late", sa.BigInteger, nullable=False, server_default="0"),
    # Up to which recording its objects say whether they are held; null where all of them do.
    sa.Column("labelled_through", _Id),
)
IS_UNLABELLED = holds.c.labelled_through.is_not(None)
sa.Index("ix_holds_unlabelled", holds.c.id, sqlite_where=IS_UNLABELLED, postgresql_where=IS_UNLABELLED)
sa.Index("ix_holds_created_at", holds.c.created_at, holds.c.id)
sa.Index("ix_holds_tenant", holds.c.tenant, holds.c.created_at, holds.c.id)

hold_recordings = sa.Table(
    "hold_recordings",
    metadata,
    sa.Column("hold", sa.Text, sa.ForeignKey(holds.c.id), primary_key=True),
    sa.Column("recording", _Id, sa.ForeignKey(recordings.c.id), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("too_late", sa.Boolean, nullable=False),
    # True if its objects could not all be labelled when it was their turn, else null.
    sa.Column("label_again", sa.Boolean),
)
IS_TO_LABEL_AGAIN = hold_recordings.c.label_again.is_not(None)
sa.Index(
    "ix_hold_recordings_label_again",
    hold_recordings.c.recording,
    hold_recordings.c.hold,
    sqlite_where=IS_TO_LABEL_AGAIN,
    postgresql_where=IS_TO_LABEL_AGAIN,
)
sa.Index("ix_hold_recordings_recording", hold_recordings.c.recording, hold_recordings.c.hold)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("recording", _Id, sa.ForeignKey(recordings.c.id), nullable=False),
    sa.Column("hold", sa.Text, sa.ForeignKey(holds.c.id), nullable=False, unique=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", sa.BigInteger, nullable=False),
    sa.Column("delivered_at", sa.BigInteger),
)
IS_WAITING = alerts.c.delivered_at.is_(None)
sa.Index("ix_alerts_recording", alerts.c.recording)
sa.Index("ix_alerts_waiting", alerts.c.next_at, alerts.c.id, sqlite_where=IS_WAITING, postgresql_where=IS_WAITING)

shreds = sa.Table(
    "shreds",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("intended_at", sa.BigInteger, nullable=False),
    sa.Column("trigger", sa.Text, nullable=False),
    sa.Column("due_through", sa.BigInteger),
    sa.Column("plan", sa.LargeBinary, nullable=False),
    sa.Column("receipt", sa.Text),
    sa.Column("finished_at", sa.BigInteger),
)
sa.Index("ix_shreds_finished_at", shreds.c.finished_at, shreds.c.intended_at)

# The recordings each intent promised to keep, so that a repeated intent returns what the first did.
shred_kept = sa.Table(
    "shred_kept",
    metadata,
    sa.Column("shred", sa.Text, sa.ForeignKey(shreds.c.id), primary_key=True),
    sa.Column("recording", _Id, sa.ForeignKey(recordings.c.id), primary_key=True),
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("basis", sa.Text, nullable=False),
    sa.Column("case_reference", sa.Text, nullable=False),
    sa.Column("queue", sa.Boolean, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("requested_at", sa.BigInteger, nullable=False),
    sa.Column("decided_by", sa.Text),
    sa.Column("decided_at", sa.BigInteger),
)
sa.Index("ix_erasures_state", erasures.c.state, erasures.c.id)
sa.Index("ix_erasures_tenant", erasures.c.tenant, erasures.c.id)

# `shred` takes, or took, the recording for this erasure.
erasure_recordings = sa.Table(
    "erasure_recordings",
    metadata,
    sa.Column("erasure", sa.Text, sa.ForeignKey(erasures.c.id), primary_key=True),
    sa.Column("recording", _Id, sa.ForeignKey(recordings.c.id), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("shred", sa.Text, sa.ForeignKey(shreds.c.id)),
)
sa.Index("ix_erasure_recordings_recording", erasure_recordings.c.recording, erasure_recordings.c.erasure)
sa.Index("ix_erasure_recordings_shred", erasure_recordings.c.shred, erasure_recordings.c.recording)

# One row, inserted by the first migration. `period` is null until the first sweep, `generation` until the first
# rotation of the keyring.
sweep_floor = sa.Table(
    "sweep_floor",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("period", sa.BigInteger),
    sa.Column("generation", sa.BigInteger),
)

certificate_batches = sa.Table(
    "certificate_batches",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("issued_at", sa.BigInteger, nullable=False),
    sa.Column("statement", sa.Text, nullable=False),
    sa.Column("leaves", sa.LargeBinary, nullable=False),
    # Null where `certificates` has a row for each.
    sa.Column("status", sa.Text),
    sa.Column("entries", sa.LargeBinary),
)

# In which batches a tenant has certificates; `batch` is the 16 bytes of its id, which sort by time.
certificate_tenants = sa.Table(
    "certificate_tenants",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("batch", _Id, primary_key=True),
    sqlite_with_rowid=False,
)

sa.Index("ix_certificate_tenants_batch", certificate_tenants.c.batch)

certificate_forms = sa.Table(
    "certificate_forms",
    metadata,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    # The first batch that needed it; empty for forms of earlier versions.
    sa.Column("batch", sa.Text, nullable=False, server_default=""),
)
sa.Index("ix_certificate_forms_batch", certificate_forms.c.batch)

# What earlier versions issued; no row is added. A row has either `jws`, or all of the columns after it.
certificates = sa.Table(
    "certificates",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("recording", _Id, sa.ForeignKey(recordings.c.id), nullable=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("supersedes", sa.Text),
    sa.Column("issued_at", sa.BigInteger, nullable=False),
    sa.Column("jws", sa.Text),
    sa.Column("batch", sa.Text, sa.ForeignKey(certificate_batches.c.id)),
    sa.Column("place", sa.Integer),
    sa.Column("form", sa.LargeBinary(32), sa.ForeignKey(certificate_forms.c.digest)),
    sa.Column("entry", sa.Text),
    sa.Column("parts", sa.Text, nullable=False, server_default="audio"),
    sa.UniqueConstraint("recording", "status", "parts"),
)
sa.Index("ix_certificates_batch", certificates.c.batch)
sa.Index("ix_certificates_tenant", certificates.c.tenant, certificates.c.id)

sweep_overrides = sa.Table(
    "sweep_overrides",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("through", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("requested_at", sa.BigInteger, nullable=False),
    sa.Column("approved_by", sa.Text),
    sa.Column("used_at", sa.BigInteger),
    sa.Column("tenant", sa.Text),
    sa.Column("stopped", sa.Text, nullable=False, server_default=""),
    sa.Column("early", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rejected_by", sa.Text),
)

policy_requests = sa.Table(
    "policy_requests",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("through", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("preview", sa.Text, nullable=False),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("requested_role", sa.Text, nullable=False),
    sa.Column("requested_at", sa.BigInteger, nullable=False),
    sa.Column("decided_by", sa.Text),
    sa.Column("decided_role", sa.Text),
    sa.Column("decided_at", sa.BigInteger),
    sa.Column("takes_effect_at", sa.BigInteger),
    sa.Column("applied_at", sa.BigInteger),
    sa.Column("metadata_retention", sa.Text),
    sa.Column("retention", sa.Text),
)
sa.Index("ix_policy_requests_tenant", policy_requests.c.tenant)

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("controller", sa.Text, nullable=False),
    sa.Column("contact", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("contract_end", sa.BigInteger),
    sa.Column("offboard_requested_by", sa.Text),
    sa.Column("offboard_approved_by", sa.Text),
    sa.Column("numbering_region", sa.Text, nullable=False, server_default="GB"),
    sa.Column("keep_dtmf", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("safeguarding_webhook", sa.Text),
    sa.Column("offboard_approved_at", sa.BigInteger),
    # JSON: [last month, period or null] of each retention agreed before, in order.
    sa.Column("metadata_before", sa.Text, nullable=False, server_default="[]"),
    # JSON: the request, its last month, period or null; of the change of existing metadata that is in force.
    sa.Column("metadata_changed", sa.Text),
    # Separated by spaces, which an origin cannot contain.
    sa.Column("origins", sa.Text, nullable=False, server_default=""),
    sa.Column("retention", sa.Text),
    sa.Column("metadata_retention", sa.Text),
    # JSON of the change of existing audio that is in force, and the last instant of capture that it applies to.
    sa.Column("retention_changed", sa.Text),
    sa.Column("retention_changed_through", sa.BigInteger),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text),
    sa.Column("secret_sha256", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Column("sealed_secret", sa.LargeBinary),
    sa.Column("imports_until", sa.BigInteger),
    sa.Column("issued_by", sa.Text),
    sa.Column("expires_at", sa.BigInteger),
)
sa.Index("ix_tokens_tenant", tokens.c.tenant)

audit = sa.Table(
    "audit",
    metadata,
    # INTEGER on SQLite makes `seq` the row's own place; BIGINT there would cost a second index.
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("role", sa.Text),
    sa.Column("tenant", sa.Text),
    sa.Column("purpose", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("target", sa.Text),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("previous_sha256", sa.LargeBinary(32), nullable=False),
    sa.Column("sha256", sa.LargeBinary(32), nullable=False),
)
HAS_TARGET = audit.c.target.is_not(None)
# Seven characters are enough to find few entries, and take eight bytes: of an id they are random. Whoever asks compares
# the whole, too.
audit_target_end: sa.ColumnClause[str] = sa.literal_column(
    f"substr('{' ' * 7}' || target, length(target) + 1)", sa.Text
)
"""The last seven characters of a target, spaces before a shorter one; `rows.target_end` is the same."""
audit_actor_middle: sa.ColumnClause[str] = sa.literal_column("substr(actor, 25, 12)", sa.Text)
"""The last twelve characters of the token's id in an actor; `rows.actor_middle` is the same."""
MANY_EVENTS = ("recording.started", "recording.sealed")
"""Events that every recording has: their entries are found without an index of events."""
OF_VAULT = "vault"
"""The actor of what the vault does itself."""
IS_OF_TOKEN = sa.text(f"actor != '{OF_VAULT}'")
IS_FEW = sa.text(f"event NOT IN ({', '.join(map(repr, MANY_EVENTS))})")
# An index that only grows at ends keeps no room for entries in between.
_FULL = {"fillfactor": 100}
sa.Index("ix_audit_tenant", audit.c.tenant, audit.c.seq, postgresql_with=_FULL)
sa.Index(
    "ix_audit_target",
    sa.text(str(audit_target_end)),
    audit.c.seq,
    sqlite_where=HAS_TARGET,
    postgresql_where=HAS_TARGET,
)
sa.Index(
    "ix_audit_actor",
    sa.text(str(audit_actor_middle)),
    audit.c.seq,
    sqlite_where=IS_OF_TOKEN,
    postgresql_where=IS_OF_TOKEN,
    postgresql_with=_FULL,
)
# A question about one tenant does not state this, so that no database takes this index for it.
IS_FEW_OF_ALL = sa.text(f"{IS_FEW} AND seq >= 0")
sa.Index("ix_audit_event", audit.c.event, audit.c.seq, sqlite_where=IS_FEW_OF_ALL, postgresql_where=IS_FEW_OF_ALL)
_OF_ONE = (audit.c.tenant, audit.c.event, audit.c.seq)
sa.Index("ix_audit_tenant_event", *_OF_ONE, sqlite_where=IS_FEW, postgresql_where=IS_FEW)

audit_hours = sa.Table(
    "audit_hours",
    metadata,
    sa.Column("first", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("hour", sa.BigInteger, nullable=False),
)
"""The number of each entry of the trail that is of another hour, since 1970 in UTC, than the one before it."""

# `key` and `request` are digests; `answer` is sealed under the keyring and the key itself.
keyed_requests = sa.Table(
    "keyed_requests",
    metadata,
    sa.Column("token", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("attempt", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("effect", sa.Boolean, nullable=False),
    sa.Column("target", sa.Text),
    sa.Column("status", sa.Integer),
    sa.Column("answer", sa.LargeBinary),
)
sa.Index("ix_keyed_requests_created_at", keyed_requests.c.created_at)

# One row, inserted by the first migration (seq 0, 32 zero bytes); moved by compare-and-swap with every insert.
audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.LargeBinary(32), nullable=False),
)

settings = sa.Table(
    "settings",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

# Of each page of the tables that grow; `vault.storage.catalog.tags` says what a page is. No backup has them.
page_tags = sa.Table(
    "page_tags",
    metadata,
    sa.Column("of_table", sa.Text, primary_key=True),
    sa.Column("page", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), primary_key=True),
    sa.Column("tag", sa.LargeBinary(16), nullable=False),
    sqlite_with_rowid=False,
)

NOT_CHANGED = sa.or_(
    # Few tenants, so the database looks each row's up among them, and reads a tenant for none of the others.
    recordings.c.tenant.not_in(sa.select(tenants.c.id).where(tenants.c.retention_changed_through.is_not(None))),
    ~sa.exists().where(
        tenants.c.id == recordings.c.tenant, tenants.c.retention_changed_through >= recordings.c.created_at
    ),
)
"""Recordings that keep the policy of their capture: changes of existing audio do not apply to them."""
