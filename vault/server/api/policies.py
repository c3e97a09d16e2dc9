"""Changes of how long existing calls and their metadata are kept, over HTTP."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from typing_extensions import TypedDict

from vault.access.permissions import Act
from vault.access.two_people import check_shown
from vault.config.sections import Retention
from vault.errors import Invalid
from vault.model import Principal, Role
from vault.ports import policies
from vault.ports.policies import PolicyState
from vault.retention.policy import month_name
from vault.server.context import VAULT, answer, body, caller, checked_tenant, lister, own
from vault.server.operation import Operations, told
from vault.server.schemas import (
    Approve,
    Body,
    Count,
    LongestSeconds,
    Moment,
    Page,
    PolicyRef,
    Sha256,
    TenantRef,
    Who,
    longest_seconds,
    render,
    sealed,
)

OPERATIONS: Final = Operations("policies")


class RequestPolicy(Body):
    """POST /v1/policies: what is to hold for the calls that exist."""

    tenant: str | None = None
    metadata_retention: Retention | None = None
    """null keeps metadata until the contract ends."""
    retention: Retention | None = None
    """For audio; one request changes one of the two."""


class _Preview(TypedDict):
    changed: Count
    earlier: Count
    later: Count
    held: Count
    live: Count
    due_at_once: Count
    earliest: Moment | None
    latest: Moment | None


class PolicyRequest(TypedDict):
    """A request to change existing calls or their metadata."""

    id: PolicyRef
    tenant: TenantRef
    through: str
    """The last month of calls that it is for; audio: up to `requested_at`."""
    metadata_retention: str | None
    retention_seconds: LongestSeconds
    retention: str | None
    """For audio; null for a request about metadata."""
    state: PolicyState
    preview: _Preview
    """Recordings that would get another date, counted when it was asked for."""
    requested_by: Who
    requested_role: Role
    requested_at: Moment
    decided_by: Who | None
    decided_role: Role | None
    decided_at: Moment | None
    takes_effect_at: Moment | None
    applied_at: Moment | None
    shown: Sha256
    """Of what is shown here; an approval repeats it."""


class PolicyRequests(TypedDict):
    """Such requests."""

    policies: list[PolicyRequest]


def render_policy(value: policies.PolicyRequest) -> PolicyRequest:
    """Render a request; `shown` is the digest of the rest."""
    return sealed(
        render(
            PolicyRequest,
            value,
            through=month_name(value.through),
            retention_seconds=longest_seconds(value.metadata_retention),
            preview=render(_Preview, value.preview),
            shown="",
        )
    )


@OPERATIONS(
    "POST /v1/policies",
    Act.POLICY_DECIDE,
    told("The request, waiting for the second person.", PolicyRequest, status=202),
    body=RequestPolicy,
    problems=(404,),
)
async def request_policy(request: web.Request) -> web.Response:
    """Ask to keep existing calls, or their metadata, otherwise: the first of two people."""
    vault, actor = await caller(request, Act.POLICY_DECIDE)
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
    return await answer(request, render_policy(asked), status=202, headers={"Location": f"/v1/policies/{asked.id}"})


@OPERATIONS(
    "GET /v1/policies",
    Act.POLICY_READ,
    told("The requests the token may see.", PolicyRequests),
    query=Page,
    queries=("tenant",),
)
async def list_policies(request: web.Request) -> web.Response:
    """List the requests, newest first."""
    vault, _, tenant = await lister(request, Act.POLICY_READ)
    found = await vault.policies.all(tenant=tenant)
    return await answer(request, PolicyRequests(policies=[render_policy(each) for each in found]))


@OPERATIONS("GET /v1/policies/{policy}", Act.POLICY_READ, told("The request.", PolicyRequest))
async def show_policy(request: web.Request) -> web.Response:
    """Show one request, and the digest that its approval repeats."""
    found, _ = await _policy(request, Act.POLICY_READ)
    return await answer(request, render_policy(found))


@OPERATIONS(
    "POST /v1/policies/{policy}/approve",
    Act.POLICY_DECIDE,
    told("The request, with when it takes effect, or rejected.", PolicyRequest),
    body=Approve,
)
async def approve_policy(request: web.Request) -> web.Response:
    """Approve as the second person, or reject or withdraw what keeps nothing longer until it is applied."""
    found, actor = await _policy(request, Act.POLICY_DECIDE)
    wanted = await body(request, Approve)
    if wanted.approve:
        check_shown(wanted.shown, render_policy(found))
    decided = await request.app[VAULT].policies.decide(found.id, approve=wanted.approve, actor=actor)
    return await answer(request, render_policy(decided))


async def _policy(request: web.Request, act: Act) -> tuple[policies.PolicyRequest, Principal]:
    return await own(request, act, "policy", "pol", request.app[VAULT].policies.show)
