"""What a deletion certificate is made of; the names of the members are the names in the JSON document.

The vocabulary is that of NIST SP 800-88 (category purge, technique cryptographic erase).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from vault.ids import RecordingId, TenantId
from vault.model import Assurance, Coordinate, Part


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
    CONTROLLER_INSTRUCTION = "controller_instruction"
    CONTRACT_END = "contract_end"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """One stored object. `versions` counts those that were deleted, null until they were enumerated."""

    name: str
    versions: int | None
    ciphertext_bytes: int
    ciphertext_sha256: str


class Authority(NamedTuple):
    """Why something was deleted: `basis` for people to read, `approvers` the credentials of two of them, or none."""

    trigger: Trigger
    basis: str
    case_reference: str | None = None
    approvers: tuple[str, ...] = ()


EXPIRED: Final = Authority(Trigger.EXPIRY, "retention period agreed with the controller")


class Subject(NamedTuple):
    """What a certificate says of one recording: the first six of it alone, parts and authority of many.

    A tuple: a sweep makes a million.
    """

    recording_id: RecordingId
    coordinate: Coordinate
    policy: str
    captured_at: datetime
    retain_until: datetime
    objects: tuple[ObjectFacts, ...]
    parts: tuple[Part, ...] = (Part.AUDIO,)
    authority: Authority = EXPIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """What was deleted."""

    recording_id: RecordingId
    parts: tuple[Part, ...]
    objects: tuple[ObjectFacts, ...]
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """How it was encrypted. `key_commitment` (SHA-256, hex) lets a key that turns up later be recognised."""

    algorithm: str
    coordinate: Coordinate
    key_commitment: str | None
    encrypted_before_first_write: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionFacts:
    """Why it was kept so long and no longer; `captured_at` is the start of the call."""

    policy: str
    policy_version: str
    basis: str
    captured_at: datetime
    retain_until: datetime
    trigger: Trigger
    case_reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorisation:
    """That nothing stood against it; `approvers` are names of credentials, two for a deletion before retain-until."""

    holds_checked_at: datetime
    hold_revision: int
    active_holds: int
    approvers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCopy:
    """What became of one place the key could have been."""

    where: KeyPlace
    action: str
    result: Result
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCopy:
    """What became of one object."""

    object: str
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
    actor: str
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
