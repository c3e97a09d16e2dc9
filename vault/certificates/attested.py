"""The members of a deletion certificate, under their names in the JSON document.

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
    """The result of an action on a copy, or of a check."""

    DONE = "done"
    NOT_APPLICABLE = "not_applicable"
    FAILED = "failed"
    UNKNOWN = "unknown"


OPEN_RESULTS: Final = frozenset({Result.FAILED, Result.UNKNOWN})
"""Results that leave something to be done. A certificate with one of them cannot be final."""


class Trigger(enum.StrEnum):
    """Why the recording was deleted."""

    EXPIRY = "expiry"
    ART17 = "art17"
    OBJECTION = "objection"
    CONTROLLER_INSTRUCTION = "controller_instruction"
    CONTRACT_END = "contract_end"
    RANGE = "range"


class KeyPlace(enum.StrEnum):
    """Where copies of the key, or of data that derives it, could have been."""

    KEYRING_REPLICA = "keyring_replica"
    PROVIDER_VERSION = "provider_version"
    CACHE_LEASES = "cache_leases"
    JOURNAL = "journal"
    BACKUPS = "backups"


class CheckName(enum.StrEnum):
    """The checks that follow the destruction."""

    OLD_EPOCH_UNWRAP_FAILS = "old_epoch_unwrap_fails"
    LEAF_UNDERIVABLE = "leaf_underivable"
    OBJECTS_ABSENT = "objects_absent"
    NO_MULTIPART_LEFT = "no_multipart_left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parties:
    """The controller (the tenant's organisation) and the processor (the vault's operator)."""

    tenant: TenantId
    controller: str
    processor: str
    contact: str


class StoredObject(NamedTuple):
    """One stored object, its size in bytes and the SHA-256 (hex) of its ciphertext.

    It is a tuple, which is fast to make: a sweep reads millions.
    """

    name: str
    bytes: int
    sha256: str


class Authority(NamedTuple):
    """Why a recording was deleted, for which case, and who decided."""

    trigger: Trigger
    case: Case | None = None
    deciders: tuple[Decider, ...] = ()


class Subject(NamedTuple):
    """What a certificate states about one recording. Many of them share an `authority`.

    `parts` are in ascending order of their names. `captured` is the policy at capture, `applied` the one that set
    `retain_until` in the end. It is a tuple, which is fast to make: a sweep makes a million.
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
        """The parts whose keys were destroyed."""
        return tuple(each.coordinate.cohort.part for each in self.parts)


class PartKey(NamedTuple):
    """The coordinate of one part's key, and its 32-byte commitment; None for a row older than commitments."""

    coordinate: Coordinate
    commitment: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    """One part whose key was destroyed. A key that is found later can be compared with `key_commitment` (hex)."""

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
    """The number of objects, their bytes, and the Merkle root (hex) of their list; see `vault.certificates.batch`."""

    count: int
    bytes: int
    root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Where the objects were, as the operator states it and as the store answered; null if it was not asked."""

    stated: str
    checked: str | None
    checked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The ciphertext that the key decrypted."""

    objects: ObjectFacts
    region: Region


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """How the recording was encrypted."""

    algorithm: str
    encrypted_before_first_write: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A retention rule: its name, the version of its wording, and its period such as `90d`; null if unknown."""

    name: str
    version: str
    period: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionFacts:
    """How long the recording had to be kept: by the policy at capture, and by the one that set `retain_until`.

    `captured_at` is the start of the call as the recorder states it. `received_at` is when the vault received its
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
    """The case behind a deletion: its id, and a digest of the tenant's reference for it."""

    id: str
    reference_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A range of plaintext bytes of the recording; `to_byte` is not included."""

    from_byte: int
    to_byte: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerFacts:
    """Why the recording was deleted."""

    kind: Trigger
    case: Case | None
    range: Range | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Somebody who decided, the requester first: a person, or the token that acted for one.

    `evidence` is the digest of what was shown to them.
    """

    person: str | None
    token: str | None
    role: Role | None
    at: datetime | None
    evidence: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorisation:
    """That no hold forbade it. `hold_revision` is the epoch of the keyring that was written without the key."""

    hold_revision: int
    active_holds: int
    holds_checked_at: datetime
    deciders: tuple[Decider, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCopy:
    """What was done about one place where the key could have been."""

    where: KeyPlace
    action: str
    result: Result
    at: datetime


class DataPlace(enum.StrEnum):
    """Where copies of the ciphertext could have been."""

    OBJECT_STORE = "object_store"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCopy:
    """What was done about the ciphertext in one place."""

    where: DataPlace
    action: str
    result: Result
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sanitisation:
    """The destruction, in the terms of NIST SP 800-88: category purge, technique cryptographic erase."""

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
    """One check and its result."""

    check: CheckName
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The checks, and when they were made."""

    checks: tuple[Check, ...]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """Something that remains for a while, the mechanism that makes it harmless or ends it, and when, if known."""

    where: str
    state: str
    until: datetime | None
    mechanism: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The origin of the transparency log with the certificate's batch. Its absence from that log would be noticed."""

    origin: str


EXPIRED: Final = Authority(Trigger.EXPIRY)

POLICY_VERSION: Final = "callvault/retention/v1"
"""The version of the rules that turn policies into dates."""
