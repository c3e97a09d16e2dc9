"""Keys: the root-key provider and the keyring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from vault.ids import TenantId
from vault.model import Assurance, Cohort, Coordinate, DataKey, Finding, Part, Pin, ShredPlan, ShredReceipt


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyReceipt:
    """The provider's word that a version cannot be read back, and from when."""

    version: str
    effective_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """A live root version."""

    version: str
    tag: bytes
    created_at: datetime | None


class RootKeyProvider(Protocol):
    """Keeps root versions; the only erasable memory in the system."""

    name: str
    assurance: Assurance

    async def new_version(self, tag: bytes) -> str:
        """Create a version, durable when it returns; `tag` (<= 64 bytes) is bound to it and listed."""

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Encrypt 32 bytes under the version, binding `aad`."""

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Decrypt. Destroyed if the version is known to be gone, Tampered if blob or aad is wrong, else Unavailable."""

    async def destroy(self, version: str) -> DestroyReceipt:
        """Return only when no copy can be read back. Destroying an absent version succeeds, so it can be repeated."""

    async def versions(self) -> Mapping[str, VersionInfo]:
        """List every live version; an error is Unavailable, never an empty answer."""

    async def self_check(self) -> Sequence[Finding]:
        """Return findings for `doctor`."""


class KeyringStore(Protocol):
    """One replica of the keyring: named blobs that never change, and a head that is exchanged.

    Names are `REPLICA` (the marker), `head`, `index/…` and `pages/…`. What has returned is durable. A replica that
    cannot answer raises Unavailable, and never calls that an absence.
    """

    name: str
    """What people call it: a directory, or s3://bucket/prefix."""

    async def initialise(self) -> bool:
        """Make an empty replica without a marker; False, and nothing is changed, if it holds anything.

        ConfigError if the medium would keep what is removed.
        """

    async def read(self, names: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return the content under each name, None for those that are certainly absent."""

    async def write(self, blobs: Mapping[str, bytes]) -> None:
        """Make each blob, or the marker, the content of its name: whole, whatever was there before."""

    async def swap(self, expected: bytes | None, head: bytes) -> bool:
        """Exchange the head if it is `expected` (None: absent) and return whether it was; else nothing is changed."""

    async def remove(self, names: Sequence[str]) -> None:
        """Remove blobs; absent ones are fine."""

    async def names(self) -> AbstractSet[str]:
        """Return the names of all blobs, what an unfinished write left behind included."""

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Keep other writers off this replica as far as its medium can; Unavailable if one holds it for long.

        Exclusion saves writers from each other's retries. What makes a write safe is `swap`.
        """

    async def check(self) -> Sequence[Finding]:
        """Return findings for `doctor` about the medium."""

    async def close(self) -> None:
        """Release connections; idempotent."""


class KeyringWriter(Protocol):
    """The one writer, held inside `Keyring.writer()`; each act is durable on a write quorum of replicas on return."""

    async def add_cohorts(self, cohorts: Sequence[Cohort]) -> None:
        """Give each missing cohort a fresh random tree; existing ones are untouched."""

    async def pin(self, pins: Sequence[Pin]) -> None:
        """Add pins. Every leaf must be derivable (check with `Keyring.derivable` first) else TooLate; repeatable."""

    async def unpin(self, pins: Sequence[Pin]) -> None:
        """Drop exactly these pins; absent ones are fine."""

    async def retire(self, used: Mapping[Cohort, int], *, since: int, below: int) -> int:
        """Drop the leaves that the closed generations `since` to `below - 1` never gave out. Repeatable.

        `used` says how many leaves of each cohort were reserved: those stay, as does whatever is pinned. Returns how
        many trees went as a whole.
        """

    async def set_last_sweep(self, at: datetime) -> None:
        """Record a sweep that found nothing due, so the clock guard measures from here."""

    async def shred(self, plan: ShredPlan) -> ShredReceipt:
        """Run steps 2-7 of the shred; returns only after the old root version is gone. Repeatable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """One replica at a look: `detail` says why it is not ok."""

    name: str
    ok: bool
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringStatus:
    """Where the keyring stands, without anything secret."""

    epoch: int
    revision: int
    fence: int
    generation: int
    provider: str
    assurance: Assurance
    lease: timedelta
    last_sweep_at: datetime | None
    trial: bool
    tenants: int
    cohorts: int
    pins: int
    write_quorum: int
    replicas: Sequence[ReplicaStatus]


class Keyring(Protocol):
    """The covers and pins of all tenants, decrypted in this process under a lease.

    Whatever is read here was looked at no longer ago than the lease; without a fresh look it raises Unavailable. So a
    process that was stopped, partitioned or asleep for longer than the lease opens nothing until it has looked again.
    """

    @property
    def epoch(self) -> int:
        """The life of the live root version."""

    @property
    def generation(self) -> int:
        """What new cohorts carry; moves with every rotation and every restore."""

    @property
    def last_sweep_at(self) -> datetime | None:
        """When the last sweep was planned."""

    @property
    def cohort_width_seconds(self) -> float:
        """Seconds per period of audio and transcript cohorts."""

    @property
    def keyring_id(self) -> bytes:
        """16 random bytes that tell this vault from every other one; fixed for ever, and no secret."""

    @property
    def trial(self) -> bool:
        """Whether this vault was created as a trial one; fixed for ever."""

    @property
    def predates_trial(self) -> bool:
        """Whether the keyring is older than the mark: nobody chose, and what was allowed then still is."""

    @property
    def lease(self) -> timedelta:
        """How long after a look at the replicas keys may still be derived."""

    def derive(self, coordinate: Coordinate) -> DataKey:
        """Return the data key. Shredded if the leaf is underivable or inside a shred under way."""

    def derivable(self, coordinate: Coordinate) -> bool:
        """Tell whether the leaf still has a key."""

    def has_cohort(self, cohort: Cohort) -> bool:
        """Tell whether the cohort's tree exists (perhaps punctured)."""

    def cohorts(self, tenant: TenantId, part: Part) -> Sequence[Cohort]:
        """Return the cohorts of a tenant's part that still have a key, oldest first."""

    def has_due(self, plan: ShredPlan) -> bool:
        """Tell whether that shred would make any leaf underivable."""

    def pins(self, tenant: TenantId | None = None) -> Sequence[Pin]:
        """Return the pins, of one tenant or all."""

    def writer(self) -> AbstractAsyncContextManager[KeyringWriter]:
        """Enter the single-writer section: one task in one process on this keyring, which sees the newest state."""

    async def run(self) -> None:
        """Renew the lease until cancelled; an outage is logged, and lets the lease run out."""

    async def refresh(self) -> None:
        """Look at the replicas, take over what others wrote, and renew the lease; Unavailable without a read quorum."""

    async def status(self) -> KeyringStatus:
        """Look at every replica and say where each stands; reads only."""

    async def check(self) -> Sequence[Finding]:
        """Open every replica by itself, through the provider, and compare the trees; list the root versions."""
