"""Erasures over HTTP: ask, list, show, and decide as the second person."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Final

from aiohttp import web
from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from vault.access.permissions import Act
from vault.access.two_people import shown_digest
from vault.ids import RecordingId
from vault.model import Principal
from vault.ports import erasures
from vault.ports.erasures import ErasureBasis, ErasureId, ErasureOutcome, ErasureState
from vault.server.context import VAULT, answer, body, caller, checked_id, lister, one_tenant, own, query_id
from vault.server.operation import Operations, told
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
    """POST /v1/erasures: `recordings`, or numbers that are searched for now."""

    tenant: str | None = None
    basis: ErasureBasis
    case_reference: Words
    recordings: Annotated[list[str], Field(max_length=10_000)] = Field(default=[])
    caller: Number | None = None
    called: Number | None = None
    queue: bool = False


class ApproveShown(Body):
    """POST /v1/erasures/{id}/approve: the `shown` of what is approved."""

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
    """Something else took it: `certificates` say what."""
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
    """An erasure; each recording that stays for now says what keeps it."""

    recordings: list[_Erased]
    shown: Sha256 | None
    """What an approval of this request names as `shown`; null if none is waited for."""


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


@OPERATIONS(
    "POST /v1/erasures",
    Act.ERASURE_REQUEST,
    told("What would go and what is held, waiting for the second person.", Erasure, location=True, status=202),
    body=RequestErasure,
    problems=(404,),
)
async def request_erasure(request: web.Request) -> web.Response:
    """Ask for an erasure: the first of two people."""
    vault, actor = await caller(request, Act.ERASURE_REQUEST)
    wanted = await body(request, RequestErasure)
    tenant = await one_tenant(vault, actor, Act.ERASURE_REQUEST, wanted.tenant, whose="recordings are erased")
    asked = await vault.erasures.request(
        wanted.into(
            ErasureRequest,
            tenant=tenant,
            recordings=tuple(RecordingId(checked_id(item, "rec", "recording")) for item in wanted.recordings),
        ),
        actor=actor,
    )
    location = f"/v1/erasures/{asked.erasure.id}"
    return await answer(request, render_erasure(asked), status=202, headers={"Location": location})


@OPERATIONS(
    "GET /v1/erasures",
    Act.ERASURE_READ,
    told("One page, newest first; `before` continues it.", ErasurePage),
    query=Page,
    queries=("tenant", "before", "limit"),
    problems=(404,),
)
async def list_erasures(request: web.Request) -> web.Response:
    """List erasures."""
    vault, wanted, tenant = await lister(request, Act.ERASURE_READ)
    before = query_id(wanted.before, "era", "before")
    page = await vault.catalog.erasures(tenant=tenant, before=ErasureId(before) if before else None, limit=wanted.limit)
    more = page[-1].id if len(page) == wanted.limit else None
    return await answer(request, ErasurePage(erasures=[render_summary(item) for item in page], before=more))


async def _erasure(request: web.Request, act: Act) -> tuple[erasures.Erasure, Principal]:
    return await own(request, act, "erasure", "era", request.app[VAULT].catalog.erasure)


@OPERATIONS("GET /v1/erasures/{erasure}", Act.ERASURE_READ, told("The erasure.", Erasure))
async def show_erasure(request: web.Request) -> web.Response:
    """Show one erasure, and what keeps what is left of it."""
    found, _ = await _erasure(request, Act.ERASURE_READ)
    return await answer(request, render_erasure(await request.app[VAULT].erasures.show(found.id)))


@OPERATIONS(
    "POST /v1/erasures/{erasure}/approve",
    Act.ERASURE_DECIDE,
    told("The erasure; what a hold keeps is still pending or was kept.", Erasure),
    body=ApproveShown,
)
async def approve_erasure(request: web.Request) -> web.Response:
    """Erase: the second of two people; answers once the keys are gone and certified."""
    found, actor = await _erasure(request, Act.ERASURE_DECIDE)
    wanted = await body(request, ApproveShown)
    approved = await request.app[VAULT].erasures.approve(found.id, shown=wanted.shown, actor=actor)
    return await answer(request, render_erasure(approved))


@OPERATIONS("POST /v1/erasures/{erasure}/reject", Act.ERASURE_DECIDE, told("The erasure; nothing was erased.", Erasure))
async def reject_erasure(request: web.Request) -> web.Response:
    """Reject an erasure: the second of two people, or the first, who withdraws it."""
    found, actor = await _erasure(request, Act.ERASURE_DECIDE)
    return await answer(request, render_erasure(await request.app[VAULT].erasures.reject(found.id, actor=actor)))
