"""The catalog: rows about recordings, holds, shreds, certificates, tenants, tokens and the audit trail; no keys.

Every method is one serialisable transaction, durable when it returns, and raises Unavailable when the database
cannot answer. `audit` events are written in the same transaction as the change they describe, so neither exists
without the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, Protocol

from vault.certificates.attested import Subject
from vault.ids import CertificateId, HoldId, NodeId, RecordingId, TenantId, TokenId
from vault.model import (
    AuditEntry,
    AuditEvent,
    Cohort,
    Heard,
    Hold,
    HoldState,
    Misdeclared,
    Part,
    Recording,
    RecordingState,
    SegmentRef,
    ShredReceipt,
    StoredCertificate,
    Tenant,
    Token,
)
from vault.ports.alerts import AlertRows
from vault.ports.erasures import Erasure, ErasureRows
from vault.ports.policies import PolicyRows
from vault.ports.repeats import KeyedRows
from vault.ports.revision import Revision

MOST_HOLDS: Final = 32
"""How many holds may stand on one recording, what flags place aside: each is a pin of every part in the keyring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingQuery:
    """Filters for a page of recordings, newest id first; `before` is the last id of the previous page.

    With a tenant, another tenant's `before` is as one that is nobody's.
    `ahead`: only those whose stated start lies after their receipt, which keeps them longer, or only the others.
    `call_tokens`, `caller_tokens` and `called_tokens` match rows that carry any of them; an empty tuple matches none.
    `agent_tokens` match rows that carry one of the first as caller or one of the second as called.
    Bounds belong to what they bound. Those of bytes and of durations need a tenant and match what has ended; with one
    of `expires_from` and `expires_to`, which match what is finished and not shredded, what goes first comes first.
    """

    tenant: TenantId | None = None
    state: RecordingState | None = None
    started_from: datetime | None = None
    started_to: datetime | None = None
    held: bool | None = None
    ahead: bool | None = None
    call_tokens: tuple[str, ...] | None = None
    caller_tokens: tuple[str, ...] | None = None
    called_tokens: tuple[str, ...] | None = None
    agent_tokens: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    min_duration: timedelta | None = None
    max_duration: timedelta | None = None
    expires_from: datetime | None = None
    expires_to: datetime | None = None
    before: RecordingId | None = None
    limit: int = 100

    @property
    def by_expiry(self) -> bool:
        """Whether what goes first comes first."""
        return self.expires_from is not None or self.expires_to is not None

    @property
    def measures(self) -> bool:
        """Whether it asks for how much or how long."""
        bounds = (self.min_bytes, self.max_bytes, self.min_duration, self.max_duration)
        return any(bound is not None for bound in bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Filters for a page of the audit trail by time, entries of one instant by number.

    `actor` is who acted as the trail writes it, `target` what was acted on. `event` is the name of an event, or what
    stands before its full stop: `access` is every access. `since` belongs to the time, `until` no more.
    `beyond` is the number of the last entry of the previous page. Nothing follows one that is not there, or not of the
    tenant and the target asked for.
    """

    tenant: TenantId | None = None
    target: str | None = None
    actor: str | None = None
    event: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    newest_first: bool = False
    beyond: int | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Shred:
    """A shred as the catalog knows it: intended, then with a receipt, then finished (everything certified).

    What it takes: audio periods up to `due_through`, metadata periods of each tenant up to `metadata_through` but for
    the months in `spared`, everything of `drop_tenants`, the recordings of the erasures that were intended with it, and
    of `changed` tenants the audio that a change of its retention has made due.
    """

    id: str
    intended_at: datetime
    trigger: str
    due_through: int | None = None
    metadata_through: Mapping[TenantId, int] = field(default_factory=dict)
    spared: frozenset[tuple[TenantId, int]] = frozenset()
    drop_tenants: frozenset[TenantId] = frozenset()
    changed: frozenset[TenantId] = frozenset()
    receipt: ShredReceipt | None = None
    finished_at: datetime | None = None

    def takes_month(self, tenant: TenantId, month: int) -> bool:
        """Tell whether the tenant's metadata of a month goes by its own clock."""
        return month <= self.metadata_through.get(tenant, -1) and (tenant, month) not in self.spared


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateBatch:
    """Certificates issued together: the signed statement and the leaf hashes (32 bytes each) it covers."""

    id: str
    issued_at: datetime
    statement: str
    leaves: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOverride:
    """Two-person permission for one sweep past a tripped guard, up to `through`.

    For what goes early of `tenant`, or for the clock (None). `stopped` says what had tripped when it was asked for;
    the permission covers no more than `early` recordings.
    """

    id: str
    tenant: TenantId | None = None
    stopped: str = ""
    early: int = 0
    through: datetime
    reason: str
    requested_by: str
    requested_at: datetime
    approved_by: str | None = None
    rejected_by: str | None = None
    used_at: datetime | None = None

    def is_open(self, *, now: datetime) -> bool:
        """Tell whether it may still serve, once it is approved."""
        return self.rejected_by is None and self.used_at is None and now <= self.through


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A journal and whoever serves it, as the catalog knows it; `name` says where, for people."""

    id: NodeId
    name: str
    started_at: datetime
    seen_at: datetime
    unstored_bytes: int = 0
    open_recordings: int = 0
    """Counted by the catalog; not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How many recordings of a tenant there are, and how many of them are held."""

    live: int
    held: int


class RecordingRows(Protocol):
    """Recordings, their segments and leaf counters."""

    async def reserve_leaves(self, cohort: Cohort, count: int) -> int:
        """Take `count` consecutive leaves that were never and will never be given out again; return the first.

        GenerationPassed if the cohort's generation is closed.
        """

    async def close_generations(
        self, below: int, *, since: int, audit: Sequence[AuditEvent] = ()
    ) -> Mapping[Cohort, int]:
        """From now on reserve no leaf and let no recording begin in a generation below `below`; it never reopens.

        Returns how many leaves were ever reserved of each cohort of the generations `since` to `below - 1`.
        """

    async def create_recording(
        self,
        recording: Recording,
        *,
        elsewhere: Sequence[str] = (),
        begun_before: bool = False,
        notes: Mapping[int, bytes] = MappingProxyType({}),
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Insert a new row, and with it what `put_notes` takes.

        `elsewhere` are the tokens of the same call key in the tenant's other metadata cohorts.

        Conflict if the tenant already has its call token or one of `elsewhere`; TooLate if `recording.audio` lies in a
        period at or below the sweep floor, so that no recording can be born into a cohort a sweep is about to take;
        GenerationPassed if a coordinate's generation is closed, unless the recording was `begun_before` in a journal.
        """

    async def recording(self, recording: RecordingId, *, tenant: TenantId | None = None) -> Recording:
        """Return the row, with `tenant` only if it is that tenant's; NotFound."""

    async def recording_by_call(self, tenant: TenantId, tokens: Sequence[str]) -> Recording | None:
        """Return the row that has one of these call tokens, the newest if there are several."""

    async def recordings_by_object(self, tenant: TenantId, tokens: Sequence[str], *, limit: int) -> Sequence[Recording]:
        """Return the newest rows that have one of these object tokens, newest first."""

    async def recordings(self, query: RecordingQuery) -> Sequence[Recording]:
        """Return one page, newest first."""

    async def open_recordings(self, *, node: NodeId | None = None) -> Sequence[Recording]:
        """Return every row in state open, or those whose journal is `node`'s."""

    async def due_recordings(
        self,
        *,
        through: int,
        after: RecordingId | None,
        limit: int,
        part: Part = Part.AUDIO,
        tenant: TenantId | None = None,
    ) -> Sequence[Recording]:
        """Return finished rows whose part's period is <= `through` and whose part is not certified gone, in id order.

        Of one tenant or all; metadata only of one, because no clock of it is shared, and only where it was not
        forgotten.
        """

    async def count_due(self, *, through: int, part: Part = Part.AUDIO, tenant: TenantId | None = None) -> int:
        """Count the rows that `due_recordings` pages through."""

    async def doubtful_recordings(
        self, *, through: int, now: datetime, after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return those of the audio's `due_recordings` that something speaks for, in id order.

        That is a retain-until after `now`, or a hold in force. Both are rare: what a sweep takes and nobody looks at
        row by row is everything else.
        """

    async def changed_recordings(
        self, tenant: TenantId, *, through: datetime, started_to: datetime, after: RecordingId | None, limit: int
    ) -> Sequence[Recording]:
        """Return the tenant's finished rows captured up to `through`, of calls begun up to `started_to`, in id order.

        `due_recordings` of all tenants, `count_due`, `doubtful_recordings` and `due_subjects` leave out what a tenant's
        change of retention is for: these rows go by it.
        """

    async def count_live(self, tenant: TenantId, *, through: datetime) -> int:
        """Count the tenant's rows captured up to `through` of which audio or metadata is not certified gone."""

    async def undeleted_recordings(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return shredded rows whose objects are not yet verified absent, in id order."""

    async def unconfirmed_metadata(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return rows whose metadata went without the audio and has no final certificate yet, in id order."""

    async def count_recordings(self) -> Mapping[RecordingState, int]:
        """Count rows per state."""

    async def count_kept(self, tenant: TenantId) -> Kept:
        """Count a tenant's recordings that are not shredded, and of them those that holds in force protect."""

    async def oldest_due(self, *, now: datetime, tenant: TenantId | None = None) -> datetime | None:
        """Return the earliest retain-until <= now among finished rows without an active hold, or None.

        Of one tenant or all.
        """

    async def add_segments(
        self, segments: Sequence[SegmentRef], *, stored_bytes: int | None = None, heard: Heard | None = None
    ) -> None:
        """Record verified objects and, if given, set the recording's stored byte count, and what its head tells.

        Repeating is harmless.
        """

    async def misdeclared(self, *, since: datetime) -> Sequence[Misdeclared]:
        """Count the recordings since then whose content is not what was declared, by recorder and both of these."""

    async def segments(self, recording: RecordingId) -> Sequence[SegmentRef]:
        """Return the recording's objects in index order, the manifest (index -1) first if there is one."""

    async def segments_of(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, Sequence[SegmentRef]]:
        """Return `segments` of each of up to 1,000 recordings at once; an unknown one has none."""

    async def finish_recording(
        self,
        recording: RecordingId,
        *,
        state: RecordingState,
        reason: str | None,
        ended_at: datetime,
        stored_bytes: int,
        objects: Sequence[SegmentRef],
        heard: Heard | None = None,
        lasted: timedelta | None = None,
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Move open → sealed | truncated and record `objects`: the manifest and any segments not yet recorded.

        `heard` is what the head tells, if its segment is among them.

        The notes go with the same transaction: the manifest has them. Truncated with the reason `EMPTY` frees the call
        key: the row's call token becomes its id, and another recording may have the token it had.

        Repeating is harmless: a row that has left `open` stays as it is and the audit events are not written again.
        """

    async def update_media(self, recording: Recording) -> None:
        """Replace the media descriptor of an open row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reindexed:
    """New tokens for the numbers in a row's facts, as long as those are still the ones that were read."""

    recording: RecordingId
    sealed_facts: bytes
    caller_token: str | None
    called_token: str | None


class NoteRows(Protocol):
    """What happened to open recordings beside their audio, sealed; and facts that came late."""

    async def put_notes(
        self, recording: RecordingId, notes: Mapping[int, bytes], *, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Insert or replace notes by number; NotFound, or Conflict if the row is no longer open."""

    async def notes(self, recording: RecordingId) -> Mapping[int, bytes]:
        """Return an open recording's sealed notes by number, in order; none for any other."""

    async def revise_facts(
        self,
        recording: RecordingId,
        *,
        sealed_facts: bytes,
        caller_token: str | None,
        called_token: str | None,
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Replace an open row's sealed facts and the tokens of its numbers; NotFound, Conflict if it is not open."""

    async def reindex(self, rows: Sequence[Reindexed], *, audit: Sequence[AuditEvent] = ()) -> int:
        """Replace tokens in one transaction, and return in how many rows; other facts or none keep what they have."""


class NodeRows(Protocol):
    """Journals, and who serves them."""

    async def register_node(self, node: Node) -> None:
        """Insert or replace by id. The first node ever registered takes the open recordings that have none."""

    async def beat_node(self, node: NodeId, *, at: datetime, unstored_bytes: int) -> None:
        """Note that the node lives; NotFound."""

    async def forget_node(self, node: NodeId) -> None:
        """Remove a node. Repeating is harmless."""

    async def nodes(self) -> Sequence[Node]:
        """Return all, by id, each with its open recordings counted."""


class HoldRows(Protocol):
    """Holds and what they protect."""

    async def add_hold(self, hold: Hold, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; NotFound if it names an unknown recording.

        Conflict if it exists, if a hold of the same kind and matter is being placed or active on all of its recordings
        (`hold` in facts), or if one of them has MOST_HOLDS that are not released.
        """

    async def revise_hold(self, hold: HoldId, revision: Revision[Hold]) -> Hold:
        """Replace the hold as `revision` says and return it; NotFound."""

    async def hold(self, hold: HoldId, *, tenant: TenantId | None = None) -> Hold:
        """Return the hold, with `tenant` only if it is that tenant's; NotFound."""

    async def holds(
        self, *, tenant: TenantId | None = None, states: Sequence[HoldState] = (), limit: int = 1000
    ) -> Sequence[Hold]:
        """Return holds, newest first; `states` empty means all."""

    async def holds_on(self, recording: RecordingId) -> Sequence[Hold]:
        """Return every hold that protects (not `too_late`) the recording, whatever its state."""


class ShredRows(Protocol):
    """Intents, receipts, certificates."""

    async def intend_shred(
        self,
        shred: Shred,
        *,
        erasures: Sequence[Erasure] = (),
        spared: Sequence[RecordingId] = (),
        audit: Sequence[AuditEvent] = (),
    ) -> Sequence[Recording]:
        """Make the intent durable and the sweep floor at least `due_through`, in one transaction.

        `erasures` are saved with it, Conflict if one is no longer approved and waiting: this shred takes their
        recordings whose outcome is `erasing`, and those not yet shredded go to state shredding. Returns what this shred
        must keep: the open recordings that fall under the intent, and `spared`. Repeating an id changes nothing and
        returns the same.
        """

    async def sweep_floor(self) -> int | None:
        """Return the highest `due_through` ever intended."""

    async def record_receipt(self, shred: str, receipt: ShredReceipt, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Attach the receipt. Repeating is harmless."""

    async def finish_shred(self, shred: str, *, at: datetime) -> None:
        """Mark that everything of this shred is certified."""

    async def unfinished_shreds(self) -> Sequence[Shred]:
        """Return shreds without `finished_at`, oldest first."""

    async def shred(self, shred: str) -> Shred:
        """Return one; NotFound."""

    async def due_subjects(self, *, through: int, after: RecordingId | None, limit: int) -> Sequence[Subject]:
        """Return what certificates say of each of `due_recordings`, objects in index order."""

    async def certify(
        self,
        batch: CertificateBatch,
        certificates: Sequence[StoredCertificate],
        *,
        forms: Mapping[bytes, str],
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Store a batch, its certificates and forms, and move the recordings along, in one transaction.

        A provisional one for the audio moves its recording to shredded and becomes its certificate; a final one
        becomes its certificate and marks its objects absent. One for the metadata takes the sealed facts and the
        tokens out of the row. Repeating the same recording, status and parts is harmless: the first stays.
        """

    async def certificate(self, certificate: CertificateId, *, tenant: TenantId | None = None) -> StoredCertificate:
        """Return one, with `tenant` only if it is that tenant's; NotFound."""

    async def certificates_of(self, recordings: Sequence[RecordingId]) -> Sequence[StoredCertificate]:
        """Return every certificate of up to 1,000 recordings."""

    async def certificate_batches(self, batches: Collection[str]) -> Mapping[str, CertificateBatch]:
        """Return the batches of these ids, by id; NotFound if one is missing."""

    async def certificate_forms(self, forms: Collection[bytes]) -> Mapping[bytes, str]:
        """Return the forms of these digests, by digest; NotFound if one is missing."""

    async def certificates(
        self,
        *,
        tenant: TenantId | None = None,
        recording: RecordingId | None = None,
        before: CertificateId | None = None,
        limit: int = 100,
    ) -> Sequence[StoredCertificate]:
        """Return a page, newest first."""

    async def add_override(self, override: SweepOverride, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or if another one of its tenant (or of the clock) is open."""

    async def revise_override(self, override: str, revision: Revision[SweepOverride]) -> SweepOverride:
        """Replace the override as `revision` says and return it; NotFound."""

    async def overrides(self) -> Sequence[SweepOverride]:
        """Return all, newest first."""


class AdminRows(Protocol):
    """Tenants, tokens, the audit trail and small settings."""

    async def add_tenant(self, tenant: Tenant, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists."""

    async def revise_tenant(self, tenant: TenantId, revision: Revision[Tenant]) -> Tenant:
        """Replace the tenant as `revision` says and return it; NotFound.

        A webhook that is new makes the tenant's waiting alerts due at once.
        """

    async def tenant(self, tenant: TenantId) -> Tenant:
        """Return one; NotFound."""

    async def tenants(self) -> Sequence[Tenant]:
        """Return all, by id."""

    async def add_token(self, token: Token, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or the token that issues it has been revoked."""

    async def token(self, token: TokenId) -> Token | None:
        """Return one, revoked ones included."""

    async def token_names(self, tokens: Sequence[TokenId]) -> Mapping[TokenId, str]:
        """Return the names of those of these tokens that there are, revoked ones included."""

    async def placers(self, holds: Sequence[HoldId]) -> Mapping[HoldId, TokenId]:
        """Return whose token placed each hold, as far as the audit trail says so."""

    async def ids_beginning(self, beginning: str, *, tenant: TenantId | None, limit: int) -> Sequence[str]:
        """Return the ids that begin so, the oldest first, with `tenant` only of that tenant's things.

        Of recordings, holds, certificates, erasures, requests about policies; of everything else there are none.
        """

    async def tokens(self, *, tenant: TenantId | None = None, expiring_by: datetime | None = None) -> Sequence[Token]:
        """Return all or a tenant's, oldest first; with `expiring_by` those not revoked that expire by then."""

    async def revoke_token(self, token: TokenId, *, at: datetime, audit: Sequence[AuditEvent] = ()) -> None:
        """Revoke; NotFound. Repeating is harmless."""

    async def append_audit(self, events: Sequence[AuditEvent]) -> None:
        """Write the events, numbered without gaps and hash-chained: SHA-256 over the previous hash and the entry."""

    async def audit_entries(
        self, *, after: int = 0, limit: int = 1000, tenant: TenantId | None = None
    ) -> Sequence[AuditEntry]:
        """Return entries with seq > after, in order: all, or a tenant's."""

    async def audit_found(self, query: AuditQuery) -> Sequence[AuditEntry]:
        """Return one page of the entries that match."""

    async def last_audited(self, event: str, target: str) -> AuditEntry | None:
        """Return the newest entry of the trail that tells of this event at this target."""

    async def setting(self, name: str) -> str | None:
        """Return a small setting of the vault (its id, its schema's origin)."""

    async def save_setting(self, name: str, value: str) -> None:
        """Insert or replace a small setting."""


class Catalog(
    RecordingRows,
    NoteRows,
    NodeRows,
    HoldRows,
    AlertRows,
    ShredRows,
    ErasureRows,
    PolicyRows,
    AdminRows,
    KeyedRows,
    Protocol,
):
    """All rows, one database."""

    async def migrate(self) -> None:
        """Bring an empty or older schema to the current one (`init` and upgrades; never implicit in `open`)."""

    async def check_schema(self) -> None:
        """ConfigError if the schema is absent, older or newer than this code's."""

    async def close(self) -> None:
        """Release connections; idempotent."""
