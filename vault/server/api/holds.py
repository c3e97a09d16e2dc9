"""Holds over HTTP: place, list, show, review, and release by two people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from vault.access.permissions import Act
from vault.errors import Invalid
from vault.ids import HoldId, RecordingId
from vault.model import Hold, Principal
from vault.server import views
from vault.server.api.names import named
from vault.server.api.recordings import scope
from vault.server.bodies import Approve, Page, PlaceHold, ReleaseHold, ReviewHold
from vault.server.context import VAULT, body, checked_id, checked_tenant, possible_id, principal, query, whole_id
from vault.services.holds.holds import HoldRequest
from vault.services.vault import Vault


async def _shown(vault: Vault, holds: Sequence[Hold]) -> list[dict[str, Any]]:
    """Render holds with the names of who did what; who placed one is in the audit trail."""
    placed = await vault.catalog.placers([hold.id for hold in holds])
    shown = [views.hold(hold, placed_by=placed.get(hold.id)) for hold in holds]
    await named(vault, {"holds": shown})
    return shown


async def shown_hold(vault: Vault, hold: Hold) -> dict[str, Any]:
    """Render one hold likewise."""
    return (await _shown(vault, [hold]))[0]


async def place(request: web.Request) -> web.Response:
    """POST /v1/holds: 201 with what is held and what came too late."""
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.HOLD_PLACE)
    wanted = await body(request, PlaceHold)
    if wanted.tenant is None and actor.tenant is None:
        raise Invalid("tenant: say whose recordings are held")
    tenant = checked_tenant(wanted.tenant) if wanted.tenant else actor.tenant
    assert tenant is not None
    await vault.access.authorise(actor, Act.HOLD_PLACE, tenant=tenant)
    recordings = tuple(RecordingId(checked_id(item, "rec", "recording")) for item in wanted.recordings)
    placed = await vault.holds.place(
        HoldRequest(
            tenant=tenant,
            kind=wanted.kind,
            matter=wanted.matter,
            reason=wanted.reason,
            authority=wanted.authority,
            owner=wanted.owner,
            review_at=wanted.review_at,
            recordings=recordings,
        ),
        actor=actor,
    )
    return web.json_response(
        await shown_hold(request.app[VAULT], placed), status=201, headers={"Location": f"/v1/holds/{placed.id}"}
    )


async def listing(request: web.Request) -> web.Response:
    """GET /v1/holds."""
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = query(request, Page)
    asked = checked_tenant(wanted.tenant) if wanted.tenant else None
    await vault.access.authorise(actor, Act.HOLD_LIST, tenant=asked)
    found = await vault.catalog.holds(tenant=scope(wanted.tenant, actor.tenant), limit=wanted.limit)
    return web.json_response({"holds": await _shown(vault, found)})


async def _hold(request: web.Request, act: Act) -> tuple[Hold, Principal]:
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = request.match_info["hold"]
    await vault.access.authorise(actor, act, target=possible_id(wanted, "hold"))
    identifier = checked_id(await whole_id(request, actor, wanted, "hold"), "hold", "hold")
    found = await vault.access.own(actor, act, vault.catalog.hold, HoldId(identifier))
    return found, actor


async def show(request: web.Request) -> web.Response:
    """GET /v1/holds/{id}."""
    found, _ = await _hold(request, Act.HOLD_LIST)
    return web.json_response(await shown_hold(request.app[VAULT], found))


async def review(request: web.Request) -> web.Response:
    """POST /v1/holds/{id}/review."""
    found, actor = await _hold(request, Act.HOLD_REVIEW)
    wanted = await body(request, ReviewHold)
    reviewed = await request.app[VAULT].holds.review(found.id, next_review=wanted.at, note=wanted.note, actor=actor)
    return web.json_response(await shown_hold(request.app[VAULT], reviewed))


async def release(request: web.Request) -> web.Response:
    """POST /v1/holds/{id}/release: the first person asks."""
    found, actor = await _hold(request, Act.HOLD_RELEASE_REQUEST)
    wanted = await body(request, ReleaseHold)
    asked = await request.app[VAULT].holds.request_release(found.id, reason=wanted.reason, actor=actor)
    return web.json_response(await shown_hold(request.app[VAULT], asked), status=202)


async def approve(request: web.Request) -> web.Response:
    """POST /v1/holds/{id}/approve: the second person decides."""
    found, actor = await _hold(request, Act.HOLD_RELEASE_APPROVE)
    wanted = await body(request, Approve)
    decided = await request.app[VAULT].holds.decide_release(
        found.id, approve=wanted.approve, shown=wanted.shown, actor=actor
    )
    return web.json_response(await shown_hold(request.app[VAULT], decided))
