"""Changes of how long existing calls and their metadata are kept, over HTTP."""

from __future__ import annotations

from aiohttp import web

from vault.access.permissions import Act
from vault.access.shown import check_shown
from vault.errors import Invalid
from vault.model import Principal
from vault.ports.policies import PolicyRequest
from vault.server import views
from vault.server.api.names import answer
from vault.server.api.recordings import scope
from vault.server.bodies import Approve, Page, RequestPolicy
from vault.server.context import VAULT, body, checked_id, checked_tenant, possible_id, principal, query, whole_id
from vault.services.vault import Vault


async def ask(request: web.Request) -> web.Response:
    """POST /v1/policies: the first person asks; nothing changes yet."""
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.POLICY_DECIDE)
    wanted = await body(request, RequestPolicy)
    tenant = actor.tenant if wanted.tenant is None else checked_tenant(wanted.tenant)
    await vault.access.authorise(actor, Act.POLICY_DECIDE, tenant=tenant)
    assert tenant is not None, "only tokens of a tenant may decide"
    given = wanted.model_fields_set & {"retention", "metadata_retention"}
    if len(given) != 1:
        raise Invalid("a request changes one thing", hint="say retention, or metadata_retention; null: the contract")
    if "metadata_retention" in given:
        asked = await vault.policies.request(tenant, retention=wanted.metadata_retention, actor=actor)
    elif wanted.retention is None:
        raise Invalid("the audio of existing calls is kept for a period", hint='say "retention": "180d"')
    else:
        asked = await vault.policies.request_audio(tenant, retention=wanted.retention, actor=actor)
    return await answer(
        request,
        views.policy(asked),
        status=202,
        headers={"Location": f"/v1/policies/{asked.id}"},
    )


async def listing(request: web.Request) -> web.Response:
    """GET /v1/policies."""
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = query(request, Page)
    asked = checked_tenant(wanted.tenant) if wanted.tenant else None
    await vault.access.authorise(actor, Act.POLICY_READ, tenant=asked)
    found = await vault.policies.all(tenant=scope(wanted.tenant, actor.tenant))
    return await answer(request, {"policies": [views.policy(each) for each in found]})


async def show(request: web.Request) -> web.Response:
    """GET /v1/policies/{policy}."""
    vault = request.app[VAULT]
    actor = await principal(request)
    return await answer(request, views.policy(await _found(request, vault, actor, Act.POLICY_READ)))


async def approve(request: web.Request) -> web.Response:
    """POST /v1/policies/{policy}/approve: the second person approves what was shown; either withdraws."""
    vault = request.app[VAULT]
    actor = await principal(request)
    found = await _found(request, vault, actor, Act.POLICY_DECIDE)
    wanted = await body(request, Approve)
    if wanted.approve:
        check_shown(wanted.shown, views.policy(found))
    decided = await vault.policies.decide(found.id, approve=wanted.approve, actor=actor)
    return await answer(request, views.policy(decided))


async def _found(request: web.Request, vault: Vault, actor: Principal, act: Act) -> PolicyRequest:
    wanted = request.match_info["policy"]
    await vault.access.authorise(actor, act, target=possible_id(wanted, "pol"))
    identifier = checked_id(await whole_id(request, actor, wanted, "pol"), "pol", "policy request")
    return await vault.access.own(actor, act, vault.policies.show, identifier)
