"""Shreds: first intended, then with a receipt, then finished."""

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
    """A shred in the catalog: first intended, then with a receipt, then finished, when all its certificates are issued.

    It deletes:

    - audio of periods up to `due_through`,
    - metadata of each tenant up to the month in `metadata_through`, except the months in `spared`,
    - all recordings of `drop_tenants`,
    - the recordings of erasures that were intended with it,
    - audio of `changed` tenants that a change of their retention has made due.
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
        """Tell whether it deletes the tenant's metadata of a month because that is due."""
        return month <= self.metadata_through.get(tenant, -1) and (tenant, month) not in self.spared


class ShredRows(Protocol):
    """The catalog rows of shreds."""

    async def intend_shred(
        self,
        shred: Shred,
        *,
        erasures: Sequence[Erasure] = (),
        spared: Sequence[RecordingId] = (),
        audit: Sequence[AuditEvent] = (),
    ) -> Sequence[Recording]:
        """Make the intent durable and raise the sweep floor to `due_through`, in one transaction.

        `erasures` are saved with it; Conflict if one is no longer approved and waiting. The shred deletes their
        recordings with the outcome `erasing`; those not yet shredded are set to `shredding`. Returns the recordings
        that the shred must keep: open ones that the intent would cover, and `spared`. Repeating an id changes nothing
        and returns the same.
        """

    async def record_receipt(self, shred: str, receipt: ShredReceipt, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Store the receipt. It may be repeated."""

    async def finish_shred(self, shred: str, *, at: datetime) -> None:
        """Record that all certificates of this shred are issued."""

    async def unfinished_shreds(self) -> Sequence[Shred]:
        """Return shreds without `finished_at`, oldest first."""
