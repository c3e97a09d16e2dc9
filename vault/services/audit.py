"""Describes acts for the audit trail, and reads it. The catalog writes an entry in its act's transaction or before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol

from vault.errors import Invalid
from vault.ids import TenantId, TokenId
from vault.model import AuditEvent, Principal, Token
from vault.ports.audit import AuditLine, AuditLookup, AuditQuery, AuditTrail
from vault.ports.tenants import TokenLookup
from vault.telemetry import AUDITED, request_id


def named(actor: Principal | Token | None) -> str:
    """Return the actor's name in the audit trail; None is the vault itself."""
    if actor is None:
        return "vault"
    return f"{actor.id if isinstance(actor, Token) else actor.token_id} {actor.name}"


def event(
    name: str,
    actor: Principal | None,
    *,
    outcome: str = "ok",
    tenant: TenantId | None = None,
    target: str | None = None,
    purpose: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """Return the event of one act of `actor` (None: the vault itself) within the current request."""
    return AuditEvent(
        event=name,
        actor=named(actor),
        role=actor.role.value if actor else None,
        outcome=outcome,
        tenant=tenant if tenant is not None else (actor.tenant if actor else None),
        purpose=purpose,
        request_id=request_id.get(),
        target=target,
        detail=dict(detail or {}),
    )


def _check_event(name: str) -> None:
    """Raise Invalid unless the name, or what stands before its dot, is that of an event."""
    known = {*AUDITED, *(each.partition(".")[0] for each in AUDITED)}
    if name not in known:
        near = get_close_matches(name, sorted(known), n=3)
        groups = sorted(each for each in known if "." not in each)
        hint = f"the nearest: {', '.join(near)}" if near else f"events begin with: {', '.join(groups)}"
        raise Invalid(f"event: there is no event {name}, and no entry has it", hint=hint)


class TrailRows(AuditLookup, AuditTrail, TokenLookup, Protocol):
    """The catalog methods that the trail needs."""


class Trail:
    """Reads the audit trail, and notes what changes nothing else."""

    def __init__(self, *, catalog: TrailRows) -> None:
        self._catalog = catalog

    async def note(self, noted: AuditEvent) -> None:
        """Return once the event is in the trail."""
        await self._catalog.append_audit([noted])

    async def read(self, query: AuditQuery) -> Sequence[AuditLine]:
        """Return one page of the trail as it is exported.

        Invalid for an event that neither this version writes nor an entry of the first page has: earlier versions
        wrote events that this one does not.
        """
        lines = await self._catalog.audit_lines(query)
        if query.event is not None and query.beyond is None and not lines:
            _check_event(query.event)
        return lines

    async def actor(self, token: TokenId) -> str:
        """Return a token as the trail writes who acted: its id and the name that it was issued with."""
        found = await self._catalog.token(token)
        return token if found is None else named(found)
