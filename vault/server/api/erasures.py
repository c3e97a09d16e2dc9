"""Erasures over HTTP: request, list, show, and decide as the second person."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Final, NotRequired

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from vault.access.permissions import Act
from vault.access.two_people import Decision, shown_digest
from vault.ids import RecordingId
from vault.ports import erasures
from vault.ports.erasures import ErasureBasis, ErasureId, ErasureOutcome, ErasureState
from vault.server.context import Admitted, checked_id, query_id
from vault.server.operation import Operations, answer
from vault.server.schemas import (
    Body,
    CertificateRef,
    Digest,
    ErasureRef,
    HoldRef,
    Moment,
    Number,
    Page,
    RecordingRef,
    Refusal,
    Sha256,
    TenantRef,
    Who,
    Words,
    render,
)
from vault.services.deletion.erasures import ErasureRequest, ErasureView, erasure_document

OPERATIONS: Final = Operations("erasures")
_Outcomes = Annotated[
    dict[ErasureOutcome, int],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {each.value: {"type": "integer", "minimum": 0} for each in ErasureOutcome},
            "required": [],
            "additionalProperties": False,
        }
    ),
]


class RequestErasure(Body):
    """POST /v1/erasures: names `recordings`, or a number whose recordings are searched now."""

    tenant: str | None = None
    basis: ErasureBasis
    case_reference: Words
    recordings: Annotated[list[str], Field(max_length=10_000)] = Field(default=[])
    caller: Number | None = None
    called: Number | None = None
    queue: bool = False


class ApproveShown(Body):
    """POST /v1/erasures/{id}/approve: repeats the `shown` of the erasure."""

    shown: Digest | None = None


class _Keeps(TypedDict):
    id: HoldRef
    matter: str
    grace_until: Moment | None


class _Erased(TypedDict):
    id: RecordingRef
    outcome: ErasureOutcome
    held: bool
    """A hold keeps it now."""
    live: bool
    """Its call is still being recorded."""
    holds: list[_Keeps]
    gone: bool
    """Another deletion took it; `certificates` name that deletion."""
    certificates: list[CertificateRef]


class _Case(TypedDict):
    id: ErasureRef
    tenant: TenantRef
    basis: ErasureBasis
    case_reference: str
    queue: bool
    state: ErasureState
    requested_by: Who
    requested_at: Moment
    decided_by: Who | None
    decided_at: Moment | None


class Erasure(_Case):
    """An erasure; each recording that stays for now has the reasons that keep it."""

    recordings: list[_Erased]
    shown: Sha256 | None
    """The value that an approval of this request repeats as `shown`; null if no approval is pending."""
    may_not_approve: NotRequired[Refusal]
    """Why this token may not approve the request; left out if it may, if nothing waits, and in other answers."""


class _Summary(_Case):
    outcomes: _Outcomes


class ErasurePage(TypedDict):
    """Erasures, with the number of their recordings for each outcome."""

    erasures: list[_Summary]
    before: ErasureRef | None


def render_summary(case: erasures.Erasure) -> _Summary:
    """Render an erasure with the number of its recordings for each outcome."""
    return render(_Summary, case, outcomes=Counter(case.recordings.values()))


def render_erasure(view: ErasureView) -> Erasure:
    """Render an erasure."""
    case = view.erasure
    recordings = [
        _Erased(
            id=recording,
            outcome=outcome,
            held=recording in view.held,
            live=recording in view.live,
            holds=[render(_Keeps, hold) for hold in view.held.get(recording, ())],
            gone=recording in view.gone,
            certificates=list(view.gone.get(recording, ())),
        )
        for recording, outcome in case.recordings.items()
    ]
    waits = case.state is ErasureState.REQUESTED
    return render(Erasure, case, recordings=recordings, shown=shown_digest(erasure_document(view)) if waits else None)


async def _erasure(request: Admitted) -> erasures.Erasure:
    return await request.own("erasure", request.vault.catalog.erasure)


@OPERATIONS(
    "POST /v1/erasures",
    Act.ERASURE_REQUEST,
    answer("The erasure: what would go, what is held; a second person decides.", Erasure, location=True, status=202),
    body=RequestErasure,
)
async def request_erasure(request: Admitted, wanted: RequestErasure) -> Erasure:
    """Request an erasure, as the first of two people."""
    tenant = await request.one_tenant(wanted.tenant, whose="recordings are erased")
    recordings = tuple(RecordingId(checked_id(item, "rec", "recording")) for item in wanted.recordings)
    asked = wanted.into(ErasureRequest, tenant=tenant, recordings=recordings)
    return render_erasure(await request.vault.erasures.request(asked, actor=request.actor))


@OPERATIONS(
    "GET /v1/erasures",
    Act.ERASURE_READ,
    answer("One page, newest first; `before` continues it.", ErasurePage),
    query=Page,
)
async def list_erasures(request: Admitted, wanted: Page) -> ErasurePage:
    """List erasures."""
    tenant = await request.within(wanted.tenant)
    before = query_id(wanted.before, "era", "before")
    page = await request.vault.catalog.erasures(
        tenant=tenant, before=ErasureId(before) if before else None, limit=wanted.limit
    )
    more = page[-1].id if len(page) == wanted.limit else None
    return ErasurePage(erasures=[render_summary(item) for item in page], before=more)


@OPERATIONS("GET /v1/erasures/{erasure}", Act.ERASURE_READ, answer("The erasure.", Erasure), of=_erasure)
async def show_erasure(request: Admitted, erasure: erasures.Erasure) -> Erasure:
    """Show one erasure, and what keeps its remaining recordings."""
    view = await request.vault.erasures.show(erasure.id)
    shown, case = render_erasure(view), view.erasure
    if case.state is not ErasureState.REQUESTED:
        return shown
    return await request.to_approve(shown, Decision.ERASURE, asked_by=case.requested_by, tenant=case.tenant)


@OPERATIONS(
    "POST /v1/erasures/{erasure}/approve",
    Act.ERASURE_DECIDE,
    answer("The erasure; recordings under a hold are pending or were kept.", Erasure),
    of=_erasure,
    body=ApproveShown,
)
async def approve_erasure(request: Admitted, erasure: erasures.Erasure, wanted: ApproveShown) -> Erasure:
    """Approve an erasure, as the second of two people; the answer comes once the keys are gone and certified."""
    return render_erasure(await request.vault.erasures.approve(erasure.id, shown=wanted.shown, actor=request.actor))


@OPERATIONS(
    "POST /v1/erasures/{erasure}/reject",
    Act.ERASURE_DECIDE,
    answer("The erasure; nothing was erased.", Erasure),
    of=_erasure,
)
async def reject_erasure(request: Admitted, erasure: erasures.Erasure) -> Erasure:
    """Reject an erasure as the second person, or withdraw it as the first."""
    return render_erasure(await request.vault.erasures.reject(erasure.id, actor=request.actor))
