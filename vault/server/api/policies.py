"""Changes of the retention of existing calls and their metadata, over HTTP."""

from __future__ import annotations

from typing import Final, NotRequired

from typing_extensions import TypedDict

from vault.access.permissions import Act
from vault.access.two_people import Decision, check_shown
from vault.config.sections import Retention
from vault.errors import Invalid
from vault.model import Role
from vault.ports import policies
from vault.ports.policies import PolicyState
from vault.retention.policy import month_name
from vault.server.context import Admitted
from vault.server.operation import Operations, answer
from vault.server.schemas import (
    Approve,
    Body,
    Count,
    LongestSeconds,
    Moment,
    OfTenant,
    PolicyRef,
    Refusal,
    Sha256,
    TenantRef,
    Who,
    longest_seconds,
    render,
    sealed,
)

OPERATIONS: Final = Operations("policies")


class RequestPolicy(Body):
    """POST /v1/policies: the new retention of existing calls."""

    tenant: str | None = None
    metadata_retention: Retention | None = None
    """null keeps metadata until the contract ends."""
    retention: Retention | None = None
    """The retention of audio. A request changes either this or `metadata_retention`."""


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
    """The last month of calls whose metadata it changes. A change of audio applies up to `requested_at`."""
    metadata_retention: str | None
    retention_seconds: LongestSeconds
    retention: str | None
    """The retention of audio; null for a request about metadata."""
    state: PolicyState
    preview: _Preview
    """The recordings that would get another date, counted at the time of the request."""
    requested_by: Who
    requested_role: Role
    requested_at: Moment
    decided_by: Who | None
    decided_role: Role | None
    decided_at: Moment | None
    takes_effect_at: Moment | None
    applied_at: Moment | None
    shown: Sha256
    """The digest of the other members but `may_not_approve`; an approval repeats it."""
    may_not_approve: NotRequired[Refusal]
    """Why this token may not approve the request; left out if it may, if nothing waits, and in other answers."""


class PolicyRequests(TypedDict):
    """Requests to change existing calls or their metadata."""

    policies: list[PolicyRequest]


def render_policy(value: policies.PolicyRequest) -> PolicyRequest:
    """Return a request for display; `shown` is the digest of its other members."""
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


async def _policy(request: Admitted) -> policies.PolicyRequest:
    return await request.own("policy", request.vault.policies.show)


@OPERATIONS(
    "POST /v1/policies",
    Act.POLICY_DECIDE,
    answer("The request, waiting for the second person.", PolicyRequest, location=True, status=202),
    body=RequestPolicy,
)
async def request_policy(request: Admitted, wanted: RequestPolicy) -> PolicyRequest:
    """Request another retention for existing calls or their metadata, as the first of two people."""
    policies, actor = request.vault.policies, request.actor
    tenant = await request.one_tenant(wanted.tenant, whose="calls are kept otherwise")
    given = wanted.model_fields_set & {"retention", "metadata_retention"}
    if len(given) != 1:
        raise Invalid("a request changes one retention", hint="send either retention or metadata_retention")
    if "metadata_retention" in given:
        return render_policy(await policies.request(tenant, retention=wanted.metadata_retention, actor=actor))
    if wanted.retention is None:
        raise Invalid("the audio of existing calls is kept for a period", hint='say "retention": "180d"')
    return render_policy(await policies.request_audio(tenant, retention=wanted.retention, actor=actor))


@OPERATIONS(
    "GET /v1/policies",
    Act.POLICY_READ,
    answer("The requests the token may see.", PolicyRequests),
    query=OfTenant,
)
async def list_policies(request: Admitted, wanted: OfTenant) -> PolicyRequests:
    """List the requests, newest first."""
    found = await request.vault.policies.all(tenant=await request.within(wanted.tenant))
    return PolicyRequests(policies=[render_policy(each) for each in found])


@OPERATIONS("GET /v1/policies/{policy}", Act.POLICY_READ, answer("The request.", PolicyRequest), of=_policy)
async def show_policy(request: Admitted, policy: policies.PolicyRequest) -> PolicyRequest:
    """Show one request, and the digest that its approval repeats."""
    shown = render_policy(policy)
    if policy.state is not PolicyState.REQUESTED:
        return shown
    return await request.to_approve(shown, Decision.POLICY, asked_by=policy.requested_by, tenant=policy.tenant)


@OPERATIONS(
    "POST /v1/policies/{policy}/approve",
    Act.POLICY_DECIDE,
    answer("The request: rejected, or approved with the time when it takes effect.", PolicyRequest),
    of=_policy,
    body=Approve,
)
async def approve_policy(request: Admitted, policy: policies.PolicyRequest, wanted: Approve) -> PolicyRequest:
    """Approve or reject a request as the second person, or withdraw it as the first.

    A request can be decided until it is applied. An approved request that keeps recordings longer cannot be withdrawn.
    """
    if wanted.approve:
        check_shown(wanted.shown, render_policy(policy))
    return render_policy(await request.vault.policies.decide(policy.id, approve=wanted.approve, actor=request.actor))
