"""Shreds: intended, then with a receipt, then finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from vault.ids import RecordingId, TenantId
from vault.model import AuditEvent, Recording, ShredReceipt
from vault.ports.erasures import Erasure


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


class ShredRows(Protocol):
    """Intents and receipts."""

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

    async def record_receipt(self, shred: str, receipt: ShredReceipt, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Attach the receipt. Repeating is harmless."""

    async def finish_shred(self, shred: str, *, at: datetime) -> None:
        """Mark that everything of this shred is certified."""

    async def unfinished_shreds(self) -> Sequence[Shred]:
        """Return shreds without `finished_at`, oldest first."""
