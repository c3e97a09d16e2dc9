"""Keys: the root-key provider and the keyring."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from vault.ids import TenantId
from vault.model import Assurance, Cohort, Coordinate, DataKey, Finding, Part, Pin, ShredPlan, ShredReceipt


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyReceipt:
    """The provider's statement that a version cannot be read back from `effective_at` on."""

    version: str
    effective_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """A live root version."""

    version: str
    tag: bytes
    created_at: datetime | None


class RootKeyProvider(Protocol):
    """Stores root versions. The vault relies only on it to erase something irrecoverably."""

    name: str
    assurance: Assurance

    async def new_version(self, tag: bytes) -> str:
        """Create a version, durable on return, and return its name; `tag` (<= 64 bytes) is stored with it."""

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Encrypt 32 bytes under the version, bound to `aad`."""

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Decrypt. Destroyed if the provider states that the version is gone, Tampered for a wrong blob or aad.

        Unavailable for any other failure.
        """

    async def destroy(self, version: str) -> DestroyReceipt:
        """Destroy a version; return only when no copy can be read back, or state from when in the receipt.

        Destroying an absent version succeeds, so the call can be repeated.
        """

    async def versions(self) -> Mapping[str, VersionInfo]:
        """Return all live versions by name; Unavailable if they cannot all be listed."""

    async def self_check(self) -> Sequence[Finding]:
        """Return findings for `callvault doctor`."""


class KeyringStore(Protocol):
    """One replica of the keyring: named blobs that do not change, and a head that is replaced.

    Names are `REPLICA` (the marker), `head`, `index/…` and `pages/…`. A change is durable when its method returns. A
    replica that cannot answer raises Unavailable; that does not mean that a blob is absent.
    """

    name: str
    """Its name for people: a directory, or s3://bucket/prefix."""

    async def initialise(self) -> bool:
        """Create an empty replica without a marker; False, and nothing is changed, if the place is not empty.

        ConfigError if the medium keeps what is removed, for example in versions.
        """

    async def read(self, names: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return the content of each name; None for a name that is known to be absent."""

    async def write(self, blobs: Mapping[str, bytes]) -> None:
        """Write blobs or the marker, each as a whole, in place of any former content."""

    async def swap(self, expected: bytes | None, head: bytes) -> bool:
        """Replace the head if it is `expected` (None: absent); return whether it was. Otherwise nothing is changed."""

    async def remove(self, names: Sequence[str]) -> None:
        """Remove blobs; absent ones are ignored."""

    async def names(self) -> AbstractSet[str]:
        """Return the names of all blobs, including those left by an unfinished write."""

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Exclude other writers from this replica as far as its medium can; Unavailable if one holds it for long.

        Exclusion only avoids retries. Concurrent writes are safe because of `swap`.
        """

    async def check(self) -> Sequence[Finding]:
        """Return findings for `callvault doctor` about the medium."""

    async def close(self) -> None:
        """Close connections; closing again is allowed."""


class KeyringWriter(Protocol):
    """The single writer, inside `Keyring.writer()`. A change is on a write quorum of replicas on return."""

    async def add_cohorts(self, cohorts: Sequence[Cohort]) -> None:
        """Create a random tree for each missing cohort; existing ones are not changed."""

    async def pin(self, pins: Sequence[Pin]) -> None:
        """Add pins; TooLate unless all their leaves have keys. It may be repeated."""

    async def unpin(self, pins: Sequence[Pin]) -> None:
        """Remove exactly these leaves under these tags; absent ones are ignored."""

    async def retire(self, used: Mapping[Cohort, int], *, since: int, below: int) -> int:
        """Remove the unused leaves of the closed generations `since` to `below - 1`. It may be repeated.

        `used` is how many leaves of each cohort were reserved; those stay, and so do pinned ones. Returns how many
        trees were removed as a whole.
        """

    async def set_last_sweep(self, at: datetime) -> None:
        """Record a sweep that found nothing due, from which the clock guard then measures."""

    async def shred(self, plan: ShredPlan) -> ShredReceipt:
        """Destroy the planned keys; return only after the old root version is destroyed. It may be repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """The state of one replica; `detail` says why it is not ok."""

    name: str
    ok: bool
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyringStatus:
    """The state of the keyring, without secrets."""

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

    The lease is how old this view may be. When it has run out, methods raise Unavailable until the replicas were read
    again. So a process that was stopped or cut off for longer than the lease decrypts nothing.
    """

    @property
    def epoch(self) -> int:
        """The number of the live root version's epoch; each shred begins a new one."""

    @property
    def generation(self) -> int:
        """The generation of new cohorts. Each rotation and each restore increases it."""

    @property
    def last_sweep_at(self) -> datetime | None:
        """When the last sweep was planned."""

    @property
    def cohort_width_seconds(self) -> float:
        """Seconds per period of audio and transcript cohorts."""

    @property
    def keyring_id(self) -> bytes:
        """16 random bytes that identify this vault. They do not change and are not secret."""

    @property
    def trial(self) -> bool:
        """Whether this vault was created as a trial vault; that cannot be changed."""

    @property
    def predates_trial(self) -> bool:
        """Whether the keyring is older than the trial mark; what was allowed then is still allowed."""

    @property
    def lease(self) -> timedelta:
        """How long keys may be derived after the replicas were read."""

    def derive(self, coordinate: Coordinate) -> DataKey:
        """Return the data key; Shredded if the leaf has no key, or if a shred of it is under way."""

    def derivable(self, coordinate: Coordinate) -> bool:
        """Tell whether the leaf still has a key."""

    def has_cohort(self, cohort: Cohort) -> bool:
        """Tell whether the cohort has a tree, which may be punctured."""

    def cohorts(self, tenant: TenantId, part: Part) -> Sequence[Cohort]:
        """Return the cohorts of a tenant's part that still have any key, oldest first."""

    def has_due(self, plan: ShredPlan) -> bool:
        """Tell whether the shred would destroy any key."""

    def living(self, cohort: Cohort, leaves: Collection[int]) -> AbstractSet[int]:
        """Return which of these leaves still have a key, as `derivable` tells of one."""

    def pins(self, tenant: TenantId | None = None, *, tags: Collection[bytes] | None = None) -> Sequence[Pin]:
        """Return the pins of one tenant, or of all, with `tags` only those under these.

        There may be millions. Leaves of one cohort and tag that adjoin are one pin, however they were placed.
        """

    def pins_on(self, place: Coordinate) -> Sequence[Pin]:
        """Return the pins that keep one key."""

    def has_pins(self, pins: Sequence[Pin]) -> bool:
        """Tell whether every leaf of these is pinned under their tags."""

    def tags(
        self, tenant: TenantId | None = None, *, within: Collection[Cohort] | None = None
    ) -> Mapping[bytes, TenantId]:
        """Return the tags of the pins of one tenant, or of all, each with its tenant; `within` only these cohorts."""

    def writer(self) -> AbstractAsyncContextManager[KeyringWriter]:
        """Become the single writer of this keyring, among all processes, with the newest state."""

    async def run(self) -> None:
        """Renew the lease until cancelled. During an outage it logs, and the lease may run out."""

    async def refresh(self) -> None:
        """Read the replicas, adopt the newest state, and renew the lease; Unavailable without a read quorum."""

    async def status(self) -> KeyringStatus:
        """Read all replicas and return their states; nothing is changed."""

    async def check(self) -> Sequence[Finding]:
        """Return findings for `callvault doctor`: open each replica through the provider and compare their trees."""
