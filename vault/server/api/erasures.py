"""Erasures over HTTP: ask, list, show, and decide as the second person."""

from __future__ import annotations

from aiohttp import web

from vault.access.permissions import Act
from vault.errors import Invalid
from vault.ids import RecordingId
from vault.model import Principal
from vault.ports.erasures import Erasure, ErasureId
from vault.server import views
from vault.server.api.names import answer, named
from vault.server.api.recordings import scope
from vault.server.bodies import ApproveShown, Page, RequestErasure
from vault.server.context import (
    VAULT,
    body,
    checked_id,
    checked_tenant,
    possible_id,
    principal,
    query,
    query_id,
    whole_id,
)
from vault.services.deletion.erasures import ErasureRequest


async def request(request: web.Request) -> web.Response:
    """POST /v1/erasures: 202 with what would go and what is held."""
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.ERASURE_REQUEST)
    wanted = await body(request, RequestErasure)
    tenant = scope(wanted.tenant, actor.tenant)
    if tenant is None:
        raise Invalid("tenant: say whose recordings are erased")
    await vault.access.authorise(
        actor, Act.ERASURE_REQUEST, tenant=checked_tenant(wanted.tenant) if wanted.tenant else tenant
    )
    asked = await vault.erasures.request(
        ErasureRequest(
            tenant=tenant,
            basis=wanted.basis,
            case_reference=wanted.case_reference,
            recordings=tuple(RecordingId(checked_id(item, "rec", "recording")) for item in wanted.recordings),
            caller=wanted.caller,
            called=wanted.called,
            queue=wanted.queue,
        ),
        actor=actor,
    )
    location = f"/v1/erasures/{asked.erasure.id}"
    return await answer(request, views.erasure(asked), status=202, headers={"Location": location})


async def listing(request: web.Request) -> web.Response:
    """GET /v1/erasures."""
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = query(request, Page)
    asked = checked_tenant(wanted.tenant) if wanted.tenant else None
    await vault.access.authorise(actor, Act.ERASURE_READ, tenant=asked)
    before = query_id(wanted.before, "era", "before")
    page = await vault.catalog.erasures(
        tenant=scope(wanted.tenant, actor.tenant),
        before=ErasureId(before) if before else None,
        limit=wanted.limit,
    )
    shown = [views.erasure_summary(item) for item in page]
    return web.json_response(
        await named(
            request.app[VAULT], {"erasures": shown, "before": page[-1].id if len(page) == wanted.limit else None}
        )
    )


async def _erasure(request: web.Request, act: Act) -> tuple[Erasure, Principal]:
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = request.match_info["erasure"]
    await vault.access.authorise(actor, act, target=possible_id(wanted, "era"))
    identifier = checked_id(await whole_id(request, actor, wanted, "era"), "era", "erasure")
    found = await vault.access.own(actor, act, vault.catalog.erasure, ErasureId(identifier))
    return found, actor


async def show(request: web.Request) -> web.Response:
    """GET /v1/erasures/{id}."""
    found, _ = await _erasure(request, Act.ERASURE_READ)
    return await answer(request, views.erasure(await request.app[VAULT].erasures.show(found.id)))


async def approve(request: web.Request) -> web.Response:
    """POST /v1/erasures/{id}/approve: the second person; the answer comes after the keys are gone and certified."""
    found, actor = await _erasure(request, Act.ERASURE_DECIDE)
    wanted = await body(request, ApproveShown)
    approved = await request.app[VAULT].erasures.approve(found.id, shown=wanted.shown, actor=actor)
    return await answer(request, views.erasure(approved))


async def reject(request: web.Request) -> web.Response:
    """POST /v1/erasures/{id}/reject: the second person, or the first one; nothing is erased."""
    found, actor = await _erasure(request, Act.ERASURE_DECIDE)
    return await answer(request, views.erasure(await request.app[VAULT].erasures.reject(found.id, actor=actor)))
