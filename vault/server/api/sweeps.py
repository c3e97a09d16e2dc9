"""Sweeps and their guards over HTTP: everything for operators, and for a tenant's token that tenant's own alone."""

from __future__ import annotations

from aiohttp import web

from vault.access.permissions import Act
from vault.access.shown import check_shown
from vault.model import Principal
from vault.ports.overrides import SweepOverride
from vault.server import views
from vault.server.api.names import answer, named
from vault.server.bodies import Approve, RequestOverride, RunSweep
from vault.server.context import VAULT, body, checked_id, checked_tenant, possible_id, principal
from vault.services.health.status import overdue_seconds
from vault.services.vault import Vault


async def run(request: web.Request) -> web.Response:
    """POST /v1/sweeps: sweep now, or say what a sweep would do."""
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.SWEEP_RUN)
    wanted = await body(request, RunSweep)
    report = (
        await vault.sweeper.preview() if wanted.dry_run else await vault.sweeper.sweep(trigger="expiry", actor=actor)
    )
    return web.json_response(views.sweep(report))


async def status(request: web.Request) -> web.Response:
    """GET /v1/sweeps: the last one, what is stopped, the overrides, and how late the promise is.

    A tenant's token hears of its own tenant: the last sweep's counts and the clock's overrides are of everybody.
    """
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.SWEEP_READ)
    last = vault.sweeper.last if actor.tenant is None else None
    found = await named(
        vault,
        {
            "last": views.sweep(last) if last else None,
            "last_sweep_at": views.moment(vault.keyring.last_sweep_at),
            "overdue_seconds": await overdue_seconds(vault.catalog, now=vault.clock.now(), tenant=actor.tenant),
            "tripped": [views.tripped(each) for each in await vault.overrides.tripped(tenant=actor.tenant)],
            "overrides": [views.override(each) for each in await vault.overrides.all(tenant=actor.tenant)],
        },
    )
    return web.json_response(found)


async def request_override(request: web.Request) -> web.Response:
    """POST /v1/sweeps/overrides: the first person vouches for the clock, or for what of a tenant is early."""
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.SWEEP_OVERRIDE)
    wanted = await body(request, RequestOverride)
    # Without a tenant it is the clock's, which concerns everybody: for a tenant's token it is then its own.
    tenant = actor.tenant if wanted.tenant is None else checked_tenant(wanted.tenant)
    await vault.access.authorise(actor, Act.SWEEP_OVERRIDE, tenant=tenant)
    asked = await vault.overrides.request(tenant=tenant, through=wanted.through, reason=wanted.reason, actor=actor)
    return await answer(request, views.override(asked), status=202)


async def show_override(request: web.Request) -> web.Response:
    """GET /v1/sweeps/overrides/{id}."""
    vault = request.app[VAULT]
    actor = await principal(request)
    return await answer(request, views.override(await _found(request, vault, actor, Act.SWEEP_READ)))


async def decide_override(request: web.Request) -> web.Response:
    """POST /v1/sweeps/overrides/{id}/approve: the second person agrees to what was shown, or rejects it."""
    vault = request.app[VAULT]
    actor = await principal(request)
    found = await _found(request, vault, actor, Act.SWEEP_OVERRIDE)
    wanted = await body(request, Approve)
    if wanted.approve:
        check_shown(wanted.shown, views.override(found))
    decided = await vault.overrides.decide(found, approve=wanted.approve, actor=actor)
    return await answer(request, views.override(decided))


async def _found(request: web.Request, vault: Vault, actor: Principal, act: Act) -> SweepOverride:
    wanted = request.match_info["override"]
    await vault.access.authorise(actor, act, target=possible_id(wanted, "ovr"))
    identifier = checked_id(wanted, "ovr", "override")
    return await vault.access.own(actor, act, vault.overrides.show, identifier)
