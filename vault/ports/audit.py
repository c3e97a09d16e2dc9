"""The audit trail: entries are numbered without gaps, and each is chained to the one before by its hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from vault.ids import HoldId, TenantId, TokenId
from vault.model import AuditEntry, AuditEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Filters for a page of the audit trail, in the order of its numbers, which is that of the chain.

    `actor` is who acted, as the trail writes it; `target` is what was acted on. `event` is the name of an event, or the
    part before its full stop: `access` matches all accesses. `since` is included, `until` is not. `beyond` is the
    number that the previous page ended with, whether the query matches that entry or not.
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


class AuditLine(NamedTuple):
    """An entry's number, and the entry as it is exported: one JSON object, without a line break."""

    seq: int
    text: str


class AuditTrail(Protocol):
    """Writes the audit trail."""

    async def append_audit(self, events: Sequence[AuditEvent]) -> None:
        """Append the events, numbered and chained as in `vault.certificates.audit_chain`."""


class AuditLookup(Protocol):
    """Reads the audit trail."""

    async def audit_lines(self, query: AuditQuery) -> Sequence[AuditLine]:
        """Return one page of the entries that match the query, as they are exported."""

    async def audit_found(self, query: AuditQuery) -> Sequence[AuditEntry]:
        """Return one page of the entries that match the query."""


class AuditTraces(Protocol):
    """Finds in the audit trail who did one thing, and when."""

    async def last_audited(self, event: str, target: str) -> AuditEntry | None:
        """Return the newest entry for this event and target; None if there is none."""

    async def placers(self, holds: Sequence[HoldId]) -> Mapping[HoldId, TokenId]:
        """Return the token that placed each hold; holds of which the audit trail does not tell it are left out."""
