"""The frozen values that the layers share, named as in docs/design.md."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from vault.ids import CertificateId, HoldId, NodeId, RecordingId, TenantId, TokenId


class Part(enum.StrEnum):
    """The parts of a recording. Each has its own retention, and so its own coordinate."""

    AUDIO = "audio"
    METADATA = "metadata"
    TRANSCRIPT = "transcript"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cohort:
    """One puncturable tree of keys, for the recordings of one tenant whose part falls due together.

    For audio and transcripts `period` counts cohort widths since the Unix epoch, and the cohort falls due at
    `period * width`. For metadata it is the creation month, `year * 12 + month - 1`.
    """

    tenant: TenantId
    part: Part
    period: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Coordinate:
    """The place of a data key in the keyring: a leaf of a cohort. It is not secret."""

    cohort: Cohort
    leaf: int


LEAVES: Final = 1 << 32
"""How many leaves a cohort has."""

INDEX_LEAF: Final = LEAVES - 1
"""The last leaf of a cohort, which no recording gets. In a metadata cohort its key is that of the blind index."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """32 bytes derived from the keyring. They are not stored and not printed."""

    material: bytes = field(repr=False)


class RecordingState(enum.StrEnum):
    """`open → sealed | truncated → shredding → shredded`."""

    OPEN = "open"
    SEALED = "sealed"
    TRUNCATED = "truncated"
    SHREDDING = "shredding"
    SHREDDED = "shredded"


EMPTY: Final = "empty"
"""State reason of a truncated recording of which nothing was acknowledged. Its call key is free again."""


class Codec(enum.StrEnum):
    """Sample encodings; `stream` means that the container defines it."""

    PCMU = "pcmu"
    PCMA = "pcma"
    S16LE = "s16le"
    S16BE = "s16be"
    STREAM = "stream"


class Container(enum.StrEnum):
    """Container formats of the stored bytes."""

    RAW = "raw"
    WAV = "wav"
    OGG = "ogg"
    WEBM = "webm"
    MP3 = "mp3"


class Content(enum.StrEnum):
    """What the first bytes of a recording look like: a container, text, or unknown."""

    WAV = "wav"
    OGG = "ogg"
    WEBM = "webm"
    MP3 = "mp3"
    TEXT = "text"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """What the stored bytes are; `channel_map` names channels in order, e.g. ("caller", "callee").

    The codec, the rate (Hz) and the number of channels of a container are those in its header; `stream` and 0 if it
    states none.
    """

    container: Container
    codec: Codec
    rate: int = 0
    channels: int = 0
    channel_map: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """What the recorder states about the call. Personal data: stored only sealed under the metadata key.

    `extra["call_key"]` is the recorder's own name for the call.
    """

    caller: str | None = None
    called: str | None = None
    direction: str | None = None
    tags: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Names of facts that were stated and not kept, with the reason; not sealed with the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One catalog row. `stored_bytes` counts plaintext bytes in verified segments; `ended_at` is when it was sealed.

    The tokens are the recorder's call key and the two numbers under the blind index of the metadata cohort, in hex.
    Once the metadata is shredded, `sealed_facts` is empty, the numbers' tokens are None and `call_token` is the
    recording's id.
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
    """The node whose journal had the bytes that were not in the object store yet.

    None for a row older than nodes, and once the audio is shredded.
    """
    audio_commitment: bytes | None = None
    """The commitment to the data key of the audio (docs/format.md); None for a row older than commitments."""
    metadata_commitment: bytes | None = None
    retention_period: str | None = None
    """The retention that applied when it was captured, such as `90d`; None for an older row or a rebuilt one."""
    object_token: str | None = None
    """The token of its S3 object key, if that is not its call key; removed together with the numbers' tokens."""
    content: Content | None = None
    """What its first bytes are, if they are not what was declared; also None for an older row or a rebuilt one."""
    lasted: timedelta | None = None
    """How long the call lasted, in whole milliseconds; None while it is open, and if it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingKeys:
    """What decides whether a recording can be held: read of thousands at a time, so no more than that."""

    id: RecordingId
    tenant: TenantId
    state: RecordingState
    started_at: datetime
    audio: Coordinate
    metadata: Coordinate


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """The media of a recording as its first bytes show it; `content` is set if they are not what was declared."""

    media: Media
    content: Content | None = None
    recorder: TokenId | None = None
    """The token of the recorder that declared it; None if that is no longer known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misdeclared:
    """How many recordings of one recorder were declared as `declared` and are `content`."""

    recorder: TokenId | None
    tenant: TenantId
    declared: Container
    content: Content
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRef:
    """One stored object of a recording; `index` -1 is the manifest.

    `offset` and `length` count plaintext bytes; `object_bytes` and `sha256` are those of the stored ciphertext.
    """

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
    """Why a recording is kept beyond its retention."""

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
class HoldTerms:
    """A hold without its recordings, of which there may be thousands."""

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
    release_requested_by: str | None = None
    release_reason: str | None = None
    released_by: str | None = None
    released_at: datetime | None = None
    grace_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(HoldTerms):
    """A named reason to keep `recordings`; `too_late` are those whose keys were gone when it was placed."""

    recordings: tuple[RecordingId, ...]
    too_late: tuple[RecordingId, ...] = ()

    @property
    def held(self) -> int:
        """How many recordings it protects."""
        return len(self.recordings)

    @property
    def late(self) -> int:
        """For how many recordings it came too late."""
        return len(self.too_late)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedHold(HoldTerms):
    """A hold with how many recordings it protects, and for how many it came too late, but not which."""

    held: int
    late: int


class Role(enum.StrEnum):
    """What a token may do; see docs/access.md for the table."""

    RECORDER = "recorder"
    AGENT = "agent"
    SAFEGUARDING_LEAD = "safeguarding_lead"
    COMPLIANCE = "compliance"
    DPO = "dpo"
    OPERATOR = "operator"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The credential that acts. `tenant` is None only for an operator of the vault."""

    token_id: TokenId
    name: str
    role: Role
    tenant: TenantId | None
    imports_until: datetime | None = None
    """See `Token.imports_until`."""
    expires_at: datetime | None = None
    expired: bool = False
    """Whether the token has expired: it may then only finish a recording that it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A credential as stored: the SHA-256 of its secret, not the secret in clear.

    A recorder's secret is stored sealed too, because a request signature can only be checked with it. Until
    `imports_until` the retention of its recordings counts from the start that it states, however long ago. From
    `expires_at` on it begins no recording; it may finish those that it began.
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
    """The token that issued it; None for an operator's token that was issued with the configuration file."""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataChange:
    """A retention that two people decided for the metadata of existing calls, up to the month `through`.

    `request` is the id of their policy request. `retention` is a period as text, counted from the end of the month of a
    call; None keeps the metadata until the contract ends.
    """

    request: str
    through: int
    retention: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionChange:
    """A retention that two people decided for the audio of calls captured up to `through`.

    `request` is the id of their policy request. `retention` is a period as text, counted as at capture: from no earlier
    than `backdating_seconds` before the receipt, unless the recorder imported. `floor` is the least period after the
    receipt. The change makes no recording due before `since`.
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

    `retention` is a period as text, such as `90d` or `7y`; None means the vault's default. `metadata_retention` is a
    period as text, counted from the end of the month of a call; None keeps the metadata until the contract ends. It
    applies to future calls. `metadata_before` lists earlier retentions in order, each with the last month (as in
    `Cohort.period`) that it holds for; `metadata_changed` outranks both.

    `contract_end` takes effect once a second person has approved it.
    `safeguarding_webhook` is the URL that alerts of flags are sent to; it may hold a secret.
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
    """Outranks the dates of calls captured before it; `retention` applies to future calls."""
    contract_end: datetime | None = None
    offboard_requested_by: str | None = None
    offboard_approved_by: str | None = None
    offboard_approved_at: datetime | None = None
    numbering_region: str = "GB"
    """The region (ISO 3166-1 alpha-2) of telephone numbers without a country code."""
    keep_dtmf: bool = False
    """Whether the keys that callers press are kept, sealed like the audio; otherwise they are dropped."""
    safeguarding_webhook: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    """The web origins (RFC 6454) whose pages may send recordings for this tenant."""

    def metadata_retention_of(self, month: int) -> str | None:
        """Return how long after the month's end its metadata is kept; None means as long as the contract."""
        if self.metadata_changed is not None and month <= self.metadata_changed.through:
            return self.metadata_changed.retention
        agreed = (kept for through, kept in self.metadata_before if month <= through)
        return next(agreed, self.metadata_retention)

    @property
    def ends_at(self) -> datetime | None:
        """When the contract ends; None while two people have not decided it."""
        return self.contract_end if self.offboard_approved_by is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One act or refusal. `detail` holds values before and after a change, and no personal data."""

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
    """An audit event as written: with its number, its time and the hash of the entry before it."""

    seq: int
    at: datetime
    event: AuditEvent
    previous_sha256: str
    sha256: str


class CertificateStatus(enum.StrEnum):
    """Provisional once the keys are destroyed, final once the objects' absence is verified."""

    PROVISIONAL = "provisional"
    FINAL = "final"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlace:
    """A certificate's place in its batch, and its document in two pieces (see `vault.certificates.template`).

    Entries of earlier versions are text.
    """

    batch: str
    index: int
    form: bytes
    entry: bytes | str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCertificate:
    """A certificate as stored: its compact JWS, or the place in a batch from which the JWS is made.

    `parts` are those whose key destruction it attests. A recording whose parts are destroyed on different days has a
    certificate for each.
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
    """How well a root provider can destroy a key; stated on certificates."""

    BEST_EFFORT = "best_effort"
    DEVICE = "device"
    HSM = "hsm"
    DELAYED = "delayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Protects leaves `first..last` of a cohort from shreds; `tag` is the 16-byte id of the hold that placed it.

    The tag tells the pins of different holds apart: a stale catalog that does not know a hold cannot drop its pin.
    """

    cohort: Cohort
    first: int
    last: int
    tag: bytes

    def is_on(self, place: Coordinate) -> bool:
        """Tell whether this pin keeps the key of a place."""
        return self.cohort == place.cohort and self.first <= place.leaf <= self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class ShredPlan:
    """Which keys one shred destroys.

    - Due cohorts keep only the leaves that a remaining pin or `keep` covers. Due are audio and transcript cohorts with
      `period <= due_through`, metadata cohorts with `period <= metadata_through[tenant]` whose tenant and month are not
      in `spared`, and the cohorts of `drop_tenants`.
    - `leaves` are destroyed individually.
    - `expired` are leaves whose own date has come. Each is destroyed unless a pin or `keep` covers it.
    - `unpin` pins are dropped first.
    - Pins with a tag in `yielding` protect a leaf only from the due date of its cohort, not from `leaves`, `expired` or
      the end of a contract.

    With `new_generation`, later recordings get new trees, which no earlier copy of the keyring has.
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
    """What one shred destroyed and when; it exists only after the root version was destroyed."""

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
    """One line of `callvault doctor`: `level` is ok, warning or error; `hint` says what to do."""

    level: str
    subject: str
    message: str
    hint: str | None = None
