"""Sweeps and their guards over HTTP. Operators see all of them, a tenant's token only those of its own tenant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from vault.access.permissions import Act
from vault.access.two_people import Decision, check_shown
from vault.errors import Invalid
from vault.ids import RecordingId
from vault.model import Assurance
from vault.ports.shreds import SweepOverride
from vault.retention import guards
from vault.retention.guards import Guard
from vault.server.context import Admitted, query_id
from vault.server.operation import Operations, answer
from vault.server.schemas import (
    Approve,
    Body,
    Count,
    Instant,
    Moment,
    OverrideRef,
    RecordingRef,
    Refusal,
    Seconds,
    Sha256,
    TenantRef,
    Who,
    Words,
    moment,
    render,
    sealed,
)
from vault.services.deletion.sweep import SweepReport

OPERATIONS: Final = Operations("sweeps")


class RunSweep(Body):
    """POST /v1/sweeps."""

    dry_run: bool = False
    after: str | None = None
    """The `after` of the previous answer; only for a dry run."""
    limit: Annotated[int, Field(ge=1, le=10_000)] = 100
    """How many recordings the answer lists; only for a dry run."""


class RequestOverride(Body):
    """POST /v1/sweeps/overrides: for the guard of `tenant`; an operator leaves `tenant` out for the clock guard."""

    tenant: str | None = None
    through: Instant
    reason: Words


class Tripped(TypedDict):
    """A guard that tripped."""

    guard: Guard
    tenant: TenantRef | None
    """The tenant whose share is postponed; null: the whole sweep is stopped."""
    reason: str
    early: Count
    """Recordings that would go before the date fixed at capture."""
    live: Count


class _Counted(TypedDict):
    tenant: TenantRef
    action: Literal["keep", "shred", "postpone"]
    reason: str
    recordings: Count


class _Line(TypedDict):
    id: RecordingRef
    tenant: TenantRef
    action: Literal["keep", "shred", "postpone"]
    reason: str


class _Receipt(TypedDict):
    epoch_destroyed: Count
    epoch_live: Count
    provider: str
    assurance: Assurance
    unrecoverable_at: Moment


class Waiting(TypedDict):
    """Approved erasures that are not carried out yet."""

    waiting: Count
    reason: str | None
    """What keeps all of them back; null: each waits for holds on its recordings, or for the next sweep."""


class Sweep(TypedDict):
    """The result of a sweep, with a `receipt` if recordings were shredded.

    A dry run has `counts`, a page of `recordings` and `after`. With `after` in the request, it counts only that page.
    """

    at: Moment
    dry_run: bool
    shredded: Count
    kept: Count
    objects_deleted_for: Count
    waiting_for_deletion: Count
    postponed: list[Tripped]
    erasures: Waiting
    counts: NotRequired[list[_Counted]]
    recordings: NotRequired[list[_Line]]
    after: NotRequired[RecordingRef | None]
    """The last recording of the page, if others follow; null after the last page."""
    receipt: NotRequired[_Receipt]


class Override(TypedDict):
    """A permission for one sweep to pass a guard."""

    id: OverrideRef
    tenant: TenantRef | None
    """The tenant whose guard it overrides; null: the clock guard, for all tenants."""
    stopped: str
    """The reason of the guard at the time of the request."""
    early: Count
    """The override covers at most this many recordings."""
    through: Moment
    reason: str
    requested_by: Who
    requested_at: Moment
    approved_by: Who | None
    rejected_by: Who | None
    used_at: Moment | None
    shown: Sha256
    """The digest of the other members but `may_not_approve`; an approval repeats it."""
    may_not_approve: NotRequired[Refusal]
    """Why this token may not approve the request; left out if it may, if nothing waits, and in other answers."""


class SweepStatus(TypedDict):
    """The state of the sweeper."""

    last: Sweep | None
    """The last sweep of this node since its start, with what has been deleted since and what waits now."""
    waiting_for_deletion: Count
    """Shredded recordings that have no final certificate yet."""
    erasures: Waiting
    last_sweep_at: Moment | None
    overdue_seconds: Seconds
    tripped: list[Tripped]
    overrides: list[Override]


def render_sweep(report: SweepReport) -> Sweep:
    """Return the result of a sweep for display."""
    shown = render(
        Sweep,
        report,
        objects_deleted_for=report.deleted,
        postponed=_tripped(report.postponed),
        erasures=render(Waiting, report.erasures),
        counts=[render(_Counted, each) for each in report.counts] if report.dry_run else None,
        recordings=[render(_Line, line, id=line.recording) for line in report.lines] if report.dry_run else None,
        receipt=None if report.receipt is None else render(_Receipt, report.receipt),
    )
    if report.dry_run:
        shown["after"] = report.after
    return shown


def render_override(value: SweepOverride) -> Override:
    """Return an override for display; `shown` is the digest of its other members."""
    return sealed(render(Override, value, shown=""))


def _tripped(values: Iterable[guards.Tripped]) -> list[Tripped]:
    return [render(Tripped, each) for each in values]


@OPERATIONS(
    "POST /v1/sweeps",
    Act.SWEEP_RUN,
    answer("The recordings that were, or would be, shredded and kept.", Sweep),
    body=RunSweep,
    problems=(404, 409),
)
async def run_sweep(request: Admitted, wanted: RunSweep) -> Sweep:
    """Sweep now; with `dry_run`, only show what a sweep would do."""
    sweeper = request.vault.sweeper
    if wanted.after is not None and not wanted.dry_run:
        raise Invalid("after: only a dry run takes it; nothing was swept")
    if wanted.dry_run:
        after = query_id(wanted.after, "rec", "after")
        report = await sweeper.preview(after=None if after is None else RecordingId(after), limit=wanted.limit)
    else:
        report = await sweeper.sweep(trigger="expiry", actor=request.actor)
    return render_sweep(report)


@OPERATIONS("GET /v1/sweeps", Act.SWEEP_READ, answer("The sweeper's state.", SweepStatus))
async def sweep_status(request: Admitted) -> SweepStatus:
    """Show the last sweep, the overrides, and how late the promise is.

    A tenant's token sees only its own tenant. The last sweep's counts and overrides of the clock guard concern all
    tenants, so they are left out.
    """
    vault, tenant = request.vault, request.actor.tenant
    last = await vault.sweeper.last() if tenant is None else None
    return SweepStatus(
        last=None if last is None else render_sweep(last),
        waiting_for_deletion=await vault.sweeper.waiting_for_deletion(tenant=tenant),
        erasures=render(Waiting, await vault.erasures.waiting(tenant=tenant)),
        last_sweep_at=moment(vault.keyring.last_sweep_at),
        overdue_seconds=await vault.status.overdue_seconds(tenant=tenant),
        tripped=_tripped(await vault.overrides.tripped(tenant=tenant)),
        overrides=[render_override(each) for each in await vault.overrides.all(tenant=tenant)],
    )


@OPERATIONS(
    "POST /v1/sweeps/overrides",
    Act.SWEEP_OVERRIDE,
    answer("The override; a second person decides.", Override, status=202),
    body=RequestOverride,
)
async def request_override(request: Admitted, wanted: RequestOverride) -> Override:
    """Request an override of a tripped guard, as the first of two people."""
    # Without `tenant`, a tenant's token overrides its own tenant's guard, an operator's the clock guard.
    tenant = await request.within(wanted.tenant)
    return render_override(
        await request.vault.overrides.request(
            tenant=tenant, through=wanted.through, reason=wanted.reason, actor=request.actor
        )
    )


async def _override(request: Admitted) -> SweepOverride:
    return await request.own("override", request.vault.overrides.show)


@OPERATIONS("GET /v1/sweeps/overrides/{override}", Act.SWEEP_READ, answer("The override.", Override), of=_override)
async def show_override(request: Admitted, override: SweepOverride) -> Override:
    """Show one override, and the digest that its approval repeats."""
    shown, tenant = render_override(override), override.tenant
    if override.approved_by is not None or not override.is_open(now=request.vault.clock.now()):
        return shown
    decision = Decision.CLOCK_OVERRIDE if tenant is None else Decision.TENANT_OVERRIDE
    return await request.to_approve(shown, decision, asked_by=override.requested_by, tenant=tenant)


@OPERATIONS(
    "POST /v1/sweeps/overrides/{override}/approve",
    Act.SWEEP_OVERRIDE,
    answer("The override: rejected, or in force until its end or its first use.", Override),
    of=_override,
    body=Approve,
)
async def approve_override(request: Admitted, override: SweepOverride, wanted: Approve) -> Override:
    """Approve or reject an override, as the second of two people."""
    if wanted.approve:
        check_shown(wanted.shown, render_override(override))
    return render_override(await request.vault.overrides.decide(override, approve=wanted.approve, actor=request.actor))
