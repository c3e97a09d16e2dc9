"""Describes acts for the audit trail. The catalog writes an entry in its act's transaction or before the act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vault.ids import TenantId
from vault.model import AuditEvent, Principal, Token
from vault.telemetry import request_id


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
    """Describe one act of `actor` (None: the vault itself) within the current request."""
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
