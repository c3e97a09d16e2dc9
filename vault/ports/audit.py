"""The audit trail: numbered without gaps, each entry chained to the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.ids import HoldId, TenantId, TokenId
from vault.model import AuditEntry, AuditEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Filters for a page of the audit trail by time, entries of one instant by number.

    `actor` is who acted as the trail writes it, `target` what was acted on. `event` is the name of an event, or what
    stands before its full stop: `access` is every access. `since` belongs to the time, `until` no more.
    `beyond` is the number of the last entry of the previous page. Nothing follows one that is not there, or not of the
    tenant and the target asked for.
    """

    tenant: TenantId | None = None
    target: str | None = None
    actor: str | None = None
    event: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    newest_first: bool = False
    beyond: int | None = None
    limit: int = 100


class AuditTrail(Protocol):
    """The trail, to write."""

    async def append_audit(self, events: Sequence[AuditEvent]) -> None:
        """Write the events, numbered without gaps and hash-chained: SHA-256 over the previous hash and the entry."""


class AuditLookup(Protocol):
    """The trail, to read."""

    async def audit_entries(
        self, *, after: int = 0, limit: int = 1000, tenant: TenantId | None = None
    ) -> Sequence[AuditEntry]:
        """Return entries with seq > after, in order: all, or a tenant's."""

    async def audit_found(self, query: AuditQuery) -> Sequence[AuditEntry]:
        """Return one page of the entries that match."""

    async def last_audited(self, event: str, target: str) -> AuditEntry | None:
        """Return the newest entry of the trail that tells of this event at this target."""

    async def placers(self, holds: Sequence[HoldId]) -> Mapping[HoldId, TokenId]:
        """Return whose token placed each hold, as far as the audit trail says so."""
