"""Keys: the root-key provider and the keyring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.model import (
    Assurance,
    Cohort,
    Coordinate,
    DataKey,
    Finding,
    Part,
    Pin,
    ShredPlan,
    ShredReceipt,
    TenantId,
)


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


class KeyringWriter(Protocol):
    """The one writer, held inside `Keyring.writer()`; every act below is durable on every replica when it returns."""

    async def add_cohorts(self, cohorts: Sequence[Cohort]) -> None:
        """Give each missing cohort a fresh random tree; existing ones are untouched."""

    async def pin(self, pins: Sequence[Pin]) -> None:
        """Add pins. Every leaf must be derivable (check with `Keyring.derivable` first) else TooLate; repeatable."""

    async def unpin(self, pins: Sequence[Pin]) -> None:
        """Drop exactly these pins; absent ones are fine."""

    async def set_last_sweep(self, at: datetime) -> None:
        """Record a sweep that found nothing due, so the clock guard measures from here."""

    async def shred(self, plan: ShredPlan) -> ShredReceipt:
        """Run steps 2-7 of the shred; returns only after the old root version is gone. Repeatable."""


class Keyring(Protocol):
    """The covers and pins of all tenants, decrypted in this process."""

    @property
    def epoch(self) -> int:
        """The life of the live root version."""

    @property
    def generation(self) -> int:
        """What new cohorts carry; moves with every restore."""

    @property
    def last_sweep_at(self) -> datetime | None:
        """When the last sweep was planned."""

    @property
    def cohort_width_seconds(self) -> float:
        """Seconds per period of audio and transcript cohorts."""

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
        """Enter the single-writer section: one task in this process, one process on this keyring."""

    async def check(self) -> Sequence[Finding]:
        """Return findings for `doctor`: replicas, root versions, agreement."""
