"""The frozen values every layer speaks in; the vocabulary of docs/design.md."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from vault.ids import CertificateId, HoldId, NodeId, RecordingId, TenantId, TokenId


class Part(enum.StrEnum):
    """The pieces of a recording that have clocks, and so coordinates, of their own."""

    AUDIO = "audio"
    METADATA = "metadata"
    TRANSCRIPT = "transcript"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cohort:
    """One puncturable tree: everything of one tenant and part that shares one clock.

    `period` counts cohort widths since the Unix epoch for audio and transcripts (the expiry day when the width is
    one day: the cohort is due from `period * width` on) and creation months (`year * 12 + month - 1`) for metadata.
    """

    tenant: TenantId
    part: Part
    period: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Coordinate:
    """Where a data key is derived; the only key-related thing outside the keyring."""

    cohort: Cohort
    leaf: int


LEAVES: Final = 1 << 32
"""How many leaves a cohort has."""

INDEX_LEAF: Final = LEAVES - 1
"""The last leaf of a metadata cohort keys its blind index; no recording ever gets the last leaf of any cohort."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """32 bytes derived from the keyring; never stored, never printed."""

    material: bytes = field(repr=False)


class RecordingState(enum.StrEnum):
    """`open → sealed | truncated → shredding → shredded`."""

    OPEN = "open"
    SEALED = "sealed"
    TRUNCATED = "truncated"
    SHREDDING = "shredding"
    SHREDDED = "shredded"


EMPTY: Final = "empty"
"""Why a recording is truncated that ended with nothing acknowledged to its recorder: its call key is free again."""


class Codec(enum.StrEnum):
    """Sample encodings; `stream` is whatever the container says."""

    PCMU = "pcmu"
    PCMA = "pcma"
    S16LE = "s16le"
    S16BE = "s16be"
    STREAM = "stream"


class Container(enum.StrEnum):
    """How the stored bytes are wrapped."""

    RAW = "raw"
    WAV = "wav"
    OGG = "ogg"
    WEBM = "webm"
    MP3 = "mp3"


class Content(enum.StrEnum):
    """What the first bytes of a recording are: a container by its mark, text, or nothing that is known."""

    WAV = "wav"
    OGG = "ogg"
    WEBM = "webm"
    MP3 = "mp3"
    TEXT = "text"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """What the stored bytes are; `channel_map` names channels in order, e.g. ("caller", "callee").

    Of a container the codec, the rate and the channels are those that its head tells; `stream` and 0 if it tells none.
    """

    container: Container
    codec: Codec
    rate: int = 0
    channels: int = 0
    channel_map: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """What the recorder says about the call. Personal: stored only sealed under the metadata part.

    `extra["call_key"]` is the recorder's own name for the call.
    """

    caller: str | None = None
    called: str | None = None
    direction: str | None = None
    tags: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    """What was stated and left out, and why; not sealed with the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One catalog row. `stored_bytes` counts plaintext bytes in verified segments; `ended_at` is when the last came.

    The tokens are what the blind index of the metadata cohort makes of the recorder's call key and of the two numbers,
    in hex. Once the metadata is shredded, `sealed_facts` is empty, the numbers' tokens are None and `call_token` is
    the recording's id.
    """

    id: RecordingId
    tenant: TenantId
    call_token: str
    state: RecordingState
    state_reason: str | None
    audio: Coordinate
    metadata: Coordinate
    media: Media
    created_at: datetime
    started_at: datetime
    ended_at: datetime | None
    retain_until: datetime
    retention_class: str
    stored_bytes: int
    sealed_facts: bytes
    caller_token: str | None = None
    called_token: str | None = None
    certificate_id: CertificateId | None = None
    metadata_certificate_id: CertificateId | None = None
    node: NodeId | None = None
    """Whose journal has what is not stored yet; None for a row older than nodes."""
    audio_commitment: bytes | None = None
    """Commits to the data key of the audio (docs/format.md); None for a row older than commitments."""
    metadata_commitment: bytes | None = None
    retention_period: str | None = None
    """How long the policy of its first day keeps it, such as `90d`; None for an older row, or one that was rebuilt."""
    object_token: str | None = None
    """Of the key under which S3 clients know it, where that is not its call key; goes with the numbers' tokens."""
    content: Content | None = None
    """What its first bytes are, where that is not what was declared; None too for an older row or a rebuilt one."""
    lasted: timedelta | None = None
    """How long the call lasted, in whole milliseconds; None while it is open, and where nobody can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the first bytes of a recording make of its media, and what they are if they are not what was declared."""

    media: Media
    content: Content | None = None
    recorder: TokenId | None = None
    """Whose token declared something else; None if that is not known any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misdeclared:
    """How many recordings of one recorder came as `content` and were declared as `declared`."""

    recorder: TokenId | None
    tenant: TenantId
    declared: Container
    content: Content
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRef:
    """One stored object of a recording: plaintext place and ciphertext identity. `index` -1 is the manifest."""

    recording: RecordingId
    index: int
    attempt: str
    name: str
    offset: int
    length: int
    object_bytes: int
    sha256: str


MANIFEST_INDEX = -1


class HoldKind(enum.StrEnum):
    """Why something is kept beyond its retention."""

    LEGAL = "legal"
    SAFEGUARDING = "safeguarding"
    REGULATORY = "regulatory"
    CLIENT_REQUEST = "client_request"


class HoldState(enum.StrEnum):
    """`placing → active → release_requested → released`; a rejected request goes back to active."""

    PLACING = "placing"
    ACTIVE = "active"
    RELEASE_REQUESTED = "release_requested"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A named reason to keep. `recordings` are the ones it protects; `too_late` those already gone when placed."""

    id: HoldId
    tenant: TenantId
    kind: HoldKind
    matter: str
    reason: str
    authority: str
    owner: str
    state: HoldState
    created_at: datetime
    review_at: datetime
    recordings: tuple[RecordingId, ...]
    too_late: tuple[RecordingId, ...] = ()
    release_requested_by: str | None = None
    release_reason: str | None = None
    released_by: str | None = None
    released_at: datetime | None = None
    grace_until: datetime | None = None


class Role(enum.StrEnum):
    """What a token may do; see docs/design.md for the table."""

    RECORDER = "recorder"
    AGENT = "agent"
    SAFEGUARDING_LEAD = "safeguarding_lead"
    COMPLIANCE = "compliance"
    DPO = "dpo"
    OPERATOR = "operator"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who acts. `tenant` is None only for the operator of the vault."""

    token_id: TokenId
    name: str
    role: Role
    tenant: TenantId | None
    imports_until: datetime | None = None
    """See `Token.imports_until`."""
    expires_at: datetime | None = None
    expired: bool = False
    """Whether the token had expired when it was let in: then only to finish a recording that it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A credential as stored: SHA-256 of the secret, never the secret in clear.

    A recorder's is there sealed too, because a request signature can only be checked with the secret itself. Until
    `imports_until` the retention of what it records counts from the start that it states, however long ago. From
    `expires_at` on it begins nothing; what it began it may finish.
    """

    id: TokenId
    name: str
    role: Role
    tenant: TenantId | None
    secret_sha256: str
    created_at: datetime
    revoked_at: datetime | None = None
    sealed_secret: bytes | None = field(default=None, repr=False)
    imports_until: datetime | None = None
    issued_by: TokenId | None = None
    """The token that issued it; None for an operator's that whoever owns the vault's files issued."""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataChange:
    """What two people decided for the metadata of calls that exist, through a month; `request` names who and why.

    `retention` is a period as text that counts from the end of the month of a call; None keeps the metadata until the
    contract ends.
    """

    request: str
    through: int
    retention: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionChange:
    """What two people decided for the audio of calls captured up to `through`; `request` names who and why.

    `retention` is a period as text, counted as at capture: from no earlier than `backdating_seconds` before the
    receipt unless the recorder imported. `floor` is the least period after the receipt. Nothing goes earlier by it than
    `since`.
    """

    request: str
    through: datetime
    retention: str
    since: datetime
    floor: str
    backdating_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """The organisation called: the controller.

    `retention` is a period as text, such as `90d` or `7y`; None means the vault's default. `metadata_retention` is one
    too, counted from the end of the month of a call; None keeps the metadata until the contract ends. It is that of
    calls to come: `metadata_before` are the ones agreed before, each with the last month (as in `Cohort.period`) that
    it holds for, in order; `metadata_changed` outranks both.
    `contract_end` takes effect once a second person has approved it.
    `safeguarding_webhook` hears of flags; its address may hold a secret.
    """

    id: TenantId
    name: str
    controller: str
    contact: str
    created_at: datetime
    retention: str | None = None
    metadata_retention: str | None = None
    metadata_before: tuple[tuple[int, str | None], ...] = ()
    metadata_changed: MetadataChange | None = None
    retention_changed: RetentionChange | None = None
    """Outranks the date of calls that were captured before; `retention` is that of calls to come."""
    contract_end: datetime | None = None
    offboard_requested_by: str | None = None
    offboard_approved_by: str | None = None
    offboard_approved_at: datetime | None = None
    numbering_region: str = "GB"
    """Where its numbers without a country code are dialled, ISO 3166-1 alpha-2."""
    keep_dtmf: bool = False
    """Whether the keys that callers press are kept, sealed like their audio; dropped otherwise."""
    safeguarding_webhook: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    """The web origins (RFC 6454) whose pages may record for it."""

    def metadata_retention_of(self, month: int) -> str | None:
        """Return for how long after its end the metadata of a month is kept; None as long as the contract."""
        if self.metadata_changed is not None and month <= self.metadata_changed.through:
            return self.metadata_changed.retention
        agreed = (kept for through, kept in self.metadata_before if month <= through)
        return next(agreed, self.metadata_retention)

    @property
    def ends_at(self) -> datetime | None:
        """When the contract ends, if two people have said so."""
        return self.contract_end if self.offboard_approved_by is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One act or refusal. `detail` holds before/after and never personal data."""

    event: str
    actor: str
    outcome: str
    role: str | None = None
    tenant: TenantId | None = None
    purpose: str | None = None
    request_id: str | None = None
    target: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """An audit event as written: numbered, timed and chained by hash."""

    seq: int
    at: datetime
    event: AuditEvent
    previous_sha256: str
    sha256: str


class CertificateStatus(enum.StrEnum):
    """Provisional once the keys are gone, final once the objects' absence is verified."""

    PROVISIONAL = "provisional"
    FINAL = "final"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlace:
    """Where a certificate stands in its batch, and its document in two pieces (see vault.certificates.template)."""

    batch: str
    index: int
    form: bytes
    entry: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCertificate:
    """A certificate as kept: either its compact JWS, or the place in a batch from which that is made.

    Both give the same bytes whenever they are asked for. The rest is for finding it: `parts` are those whose keys it
    attests; a recording whose parts go on different days has one for each.
    """

    id: CertificateId
    recording: RecordingId
    tenant: TenantId
    status: CertificateStatus
    supersedes: CertificateId | None
    issued_at: datetime
    jws: str | None = None
    place: BatchPlace | None = None
    parts: tuple[Part, ...] = (Part.AUDIO,)


class Assurance(enum.StrEnum):
    """How truly a root provider can destroy; printed on every certificate."""

    BEST_EFFORT = "best_effort"
    DEVICE = "device"
    HSM = "hsm"
    DELAYED = "delayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Keeps leaves `first..last` of a cohort through sweeps; `tag` is the 16-byte id of the hold that placed it.

    The tag makes pins a set: a stale catalog that does not know a hold cannot drop that hold's pin.
    """

    cohort: Cohort
    first: int
    last: int
    tag: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShredPlan:
    """What one shred takes away.

    Every audio and transcript cohort with `period <= due_through`, every metadata cohort of a tenant with `period <=
    metadata_through[tenant]` that is not of a month in `spared`, and every cohort of `drop_tenants`, keeps only leaves
    covered by its remaining pins and by `keep`; `leaves` are punctured individually; `unpin` pins are dropped first.
    `expired` are leaves whose own date has come, whatever that of their cohort is: each goes unless a pin or `keep`
    covers it. Pins with a tag in `yielding` keep a leaf through the date of its cohort, and against nothing else: not
    against `leaves`, `expired` or the end of a contract.
    With `new_generation` what is to come gets trees that no copy of the keyring from before has.
    """

    intent_id: str
    at: datetime
    due_through: int | None = None
    metadata_through: Mapping[TenantId, int] = field(default_factory=dict)
    spared: frozenset[tuple[TenantId, int]] = frozenset()
    leaves: frozenset[Coordinate] = frozenset()
    keep: frozenset[Coordinate] = frozenset()
    unpin: tuple[Pin, ...] = ()
    expired: Mapping[Cohort, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    yielding: frozenset[bytes] = frozenset()
    drop_tenants: frozenset[TenantId] = frozenset()
    new_generation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShredReceipt:
    """Proof that one shred passed its point of no return."""

    intent_id: str
    epoch_destroyed: int
    epoch_live: int
    root_version_destroyed: str
    provider: str
    assurance: Assurance
    replicas: int
    unrecoverable_at: datetime
    caches_clear_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `doctor`: level is ok, warning or error; `hint` says what to do."""

    level: str
    subject: str
    message: str
    hint: str | None = None
