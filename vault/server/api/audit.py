"""The audit trail over HTTP: the whole of it in order, or what answers a question."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from vault.access.permissions import Act, permits
from vault.certificates.audit_chain import instant
from vault.errors import Invalid
from vault.ids import RecordingId, TokenId
from vault.model import AuditEntry, HoldKind
from vault.ports.audit import AuditQuery
from vault.retention.decide import in_force
from vault.server.api.recordings import scope
from vault.server.bodies import ReadAudit
from vault.server.context import VAULT, checked_tenant, principal, query, query_id
from vault.services.audit import named
from vault.services.vault import Vault


async def audit(request: web.Request) -> web.Response:
    """GET /v1/audit: a tenant's token sees its tenant's entries."""
    vault = request.app[VAULT]
    actor = await principal(request)
    act = Act.AUDIT_READ_HELD if permits(actor.role, Act.AUDIT_READ_HELD) else Act.AUDIT_READ
    await vault.access.authorise(actor, act)
    wanted = query(request, ReadAudit)
    asked = checked_tenant(wanted.tenant) if wanted.tenant else None
    await vault.access.authorise(actor, act, tenant=asked)
    recording = query_id(wanted.recording, "rec", "recording")
    if recording is not None:
        await vault.access.own(actor, act, vault.catalog.recording, recording)
    if act is Act.AUDIT_READ_HELD and not await _safeguarded(vault, recording):
        await vault.access.authorise(actor, Act.AUDIT_READ, target=recording)
    newest = wanted.order == "newest"
    if newest and wanted.after:
        raise Invalid("after: the newest entries are continued with before")
    if not newest and wanted.before is not None:
        raise Invalid("before: the oldest entries are continued with after")
    tenant = scope(wanted.tenant, actor.tenant)
    narrowed = (recording, wanted.actor, wanted.event, wanted.since, wanted.until)
    if newest or any(each is not None for each in narrowed):
        entries = await vault.catalog.audit_found(
            AuditQuery(
                tenant=tenant,
                target=recording,
                actor=await _named(vault, query_id(wanted.actor, "tok", "actor")),
                event=wanted.event,
                since=wanted.since,
                until=wanted.until,
                newest_first=newest,
                beyond=wanted.before if newest else wanted.after or None,
                limit=wanted.limit,
            )
        )
    else:
        entries = await vault.catalog.audit_entries(after=wanted.after, limit=wanted.limit, tenant=tenant)
    return web.json_response(
        {
            "entries": [_entry(each) for each in entries],
            "after": entries[-1].seq if entries and not newest else wanted.after,
            "before": entries[-1].seq if newest and len(entries) == wanted.limit else None,
        }
    )


async def _safeguarded(vault: Vault, recording: str | None) -> bool:
    """Tell whether a safeguarding hold keeps the recording."""
    holds = [] if recording is None else await vault.catalog.holds_on(RecordingId(recording))
    return any(hold.kind is HoldKind.SAFEGUARDING and in_force(hold) for hold in holds)


async def _named(vault: Vault, token: str | None) -> str | None:
    """Return a token as the trail writes who acted: its id and the name that it was issued with."""
    if token is None:
        return None
    found = await vault.catalog.token(TokenId(token))
    return token if found is None else named(found)


def _entry(entry: AuditEntry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "at": instant(entry.at),  # as it was hashed, to the microsecond
        "event": entry.event.event,
        "actor": entry.event.actor,
        "role": entry.event.role,
        "tenant": entry.event.tenant,
        "outcome": entry.event.outcome,
        "purpose": entry.event.purpose,
        "request_id": entry.event.request_id,
        "target": entry.event.target,
        "detail": dict(entry.event.detail),
        "previous_sha256": entry.previous_sha256,
        "sha256": entry.sha256,
    }
