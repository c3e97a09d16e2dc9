"""What a deletion certificate is made of; the names of the members are the names in the JSON document.

The vocabulary is that of NIST SP 800-88 (category purge, technique cryptographic erase).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from vault.ids import RecordingId, TenantId
from vault.model import Assurance, Coordinate, Part, Role


class Result(enum.StrEnum):
    """How an action on a copy, or a check, came out."""

    DONE = "done"
    NOT_APPLICABLE = "not_applicable"
    FAILED = "failed"
    UNKNOWN = "unknown"


OPEN_RESULTS: Final = frozenset({Result.FAILED, Result.UNKNOWN})
"""Outcomes that leave something to be done, and so keep a certificate from being final."""


class Trigger(enum.StrEnum):
    """Why the recording was deleted."""

    EXPIRY = "expiry"
    ART17 = "art17"
    OBJECTION = "objection"
    CONTROLLER_INSTRUCTION = "controller_instruction"
    CONTRACT_END = "contract_end"
    RANGE = "range"


class KeyPlace(enum.StrEnum):
    """Where copies of the key, or of what derives it, could have been."""

    KEYRING_REPLICA = "keyring_replica"
    PROVIDER_VERSION = "provider_version"
    CACHE_LEASES = "cache_leases"
    JOURNAL = "journal"
    BACKUPS = "backups"


class CheckName(enum.StrEnum):
    """What was looked at afterwards."""

    OLD_EPOCH_UNWRAP_FAILS = "old_epoch_unwrap_fails"
    LEAF_UNDERIVABLE = "leaf_underivable"
    OBJECTS_ABSENT = "objects_absent"
    NO_MULTIPART_LEFT = "no_multipart_left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parties:
    """Who is responsible: the tenant's organisation controls, the vault's operator processes."""

    tenant: TenantId
    controller: str
    processor: str
    contact: str


class StoredObject(NamedTuple):
    """One stored object, its size in bytes and the SHA-256 (hex) of its ciphertext. A tuple: a sweep reads millions."""

    name: str
    bytes: int
    sha256: str


class Authority(NamedTuple):
    """Why something was deleted, on which case, and who decided."""

    trigger: Trigger
    case: Case | None = None
    deciders: tuple[Decider, ...] = ()


class Subject(NamedTuple):
    """What a certificate says of one recording; many share an `authority`. A tuple: a sweep makes a million.

    `parts` are in ascending order of their names. `captured` and `applied` are the policies that set `retain_until`.
    """

    recording_id: RecordingId
    parts: tuple[PartKey, ...]
    captured: Policy | None
    applied: Policy | None
    captured_at: datetime
    received_at: datetime
    retain_until: datetime
    objects: tuple[StoredObject, ...]
    authority: Authority

    @property
    def names(self) -> tuple[Part, ...]:
        """The parts whose keys are gone."""
        return tuple(each.coordinate.cohort.part for each in self.parts)


class PartKey(NamedTuple):
    """Where the key of one part was derived, and the 32 bytes that commit to it; None for a row older than those."""

    coordinate: Coordinate
    commitment: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    """One part whose key is gone. `key_commitment` (hex) lets a key that turns up later be recognised."""

    part: Part
    coordinate: Coordinate
    key_commitment: str | None
    shredded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFacts:
    """What was deleted."""

    id: RecordingId
    parts: tuple[PartFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """How many objects, how many bytes, and the Merkle root (hex) of their list, as in `vault.certificates.objects`."""

    count: int
    bytes: int
    root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Where the objects were: as the operator states it, and as the store said; null if it was not asked."""

    stated: str
    checked: str | None
    checked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The ciphertext that the key opened."""

    objects: ObjectFacts
    region: Region


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """How it was encrypted."""

    algorithm: str
    encrypted_before_first_write: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A rule of retention: its name, the version of its wording, and its period such as `90d`, null if not known."""

    name: str
    version: str
    period: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionFacts:
    """How long it had to be kept, by the policy of its first day and by the one that set `retain_until` in the end.

    `captured_at` is the start of the call as the recorder states it, `received_at` the vault's own time of its
    beginning. `instruction` is the id of an instruction that changed the date.
    """

    captured: Policy | None
    applied: Policy | None
    captured_at: datetime
    received_at: datetime
    retain_until: datetime
    instruction: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The case behind a deletion: its id, and a digest of what the tenant calls it."""

    id: str
    reference_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Plaintext bytes of the recording, from the first to before the last."""

    from_byte: int
    to_byte: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerFacts:
    """Why it was deleted."""

    kind: Trigger
    case: Case | None
    range: Range | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Who decided, the one who asked first: a person, or the token that stood for one. `evidence` is what was shown."""

    person: str | None
    token: str | None
    role: Role | None
    at: datetime | None
    evidence: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorisation:
    """That nothing stood against it. `hold_revision` is the epoch of the keyring that was written without the key."""

    hold_revision: int
    active_holds: int
    holds_checked_at: datetime
    deciders: tuple[Decider, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCopy:
    """What became of one place the key could have been."""

    where: KeyPlace
    action: str
    result: Result
    at: datetime


class DataPlace(enum.StrEnum):
    """Where copies of the ciphertext could have been."""

    OBJECT_STORE = "object_store"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCopy:
    """What became of the ciphertext in one place."""

    where: DataPlace
    action: str
    result: Result
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sanitisation:
    """The destruction, in the words of NIST SP 800-88: category purge, technique cryptographic erase."""

    category: str = "purge"
    technique: str = "cryptographic erase"
    epoch_destroyed: int
    provider: str
    assurance: Assurance
    key_copies: tuple[KeyCopy, ...]
    data_copies: tuple[DataCopy, ...]
    tool: str
    tool_version: str
    started: datetime
    unrecoverable_at: datetime
    caches_clear_at: datetime
    completed: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look afterwards."""

    check: CheckName
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was looked at, and when."""

    checks: tuple[Check, ...]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """Something that remains for a while, what makes it harmless or end, and until when if that is known."""

    where: str
    state: str
    until: datetime | None
    mechanism: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The transparency log that holds the certificate's batch, by its origin: absence from that log would show."""

    origin: str


EXPIRED: Final = Authority(Trigger.EXPIRY)

POLICY_VERSION: Final = "callvault/retention/v1"
"""The wording of the rules by which policies give dates."""
