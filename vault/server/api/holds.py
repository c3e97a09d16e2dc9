"""Holds over HTTP: place, list, show, review, and release by two people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from aiohttp import web
from pydantic import Field, model_validator
from typing_extensions import TypedDict

from vault import model
from vault.access.permissions import Act
from vault.access.two_people import shown_digest
from vault.ids import RecordingId
from vault.model import HoldKind, HoldState, Principal
from vault.ports.holds import Member
from vault.server.context import VAULT, answer, body, caller, checked_id, lister, one_tenant, own, query, query_id
from vault.server.operation import Operations, told
from vault.server.schemas import (
    Approve,
    Body,
    Count,
    HoldRef,
    Instant,
    Moment,
    Page,
    RecordingRef,
    Sha256,
    TenantRef,
    Who,
    Words,
    render,
)
from vault.services.holds.holds import HoldRequest, release_document
from vault.services.vault import Vault

OPERATIONS: Final = Operations("holds")
_FIRST_FEW: Final = 10
"""How many of a hold's recordings a list shows."""


class PlaceHold(Body):
    """POST /v1/holds."""

    tenant: str | None = None
    kind: HoldKind
    matter: Words
    reason: Words
    authority: Words
    owner: Words
    review_at: Instant | None = None
    recordings: Annotated[list[str], Field(min_length=1, max_length=10_000)]


class ReviewHold(Body):
    """POST /v1/holds/{id}/review."""

    review_at: Instant | None = None
    next_review: Annotated[Instant | None, Field(json_schema_extra={"deprecated": True})] = None
    """What `review_at` was called before; it goes in the next version."""
    note: Words

    @model_validator(mode="after")
    def _once(self) -> Self:
        if (self.review_at is None) == (self.next_review is None):
            raise ValueError("review_at: say once when somebody looks again")
        return self

    @property
    def at(self) -> datetime:
        """When somebody looks again."""
        found = self.review_at or self.next_review
        assert found is not None
        return found


class ReleaseHold(Body):
    """POST /v1/holds/{id}/release."""

    reason: Words


class MembersPage(Body):
    """Which of a hold's recordings are shown."""

    before: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class _Held(TypedDict):
    id: RecordingRef
    outcome: Literal["held", "too_late"]


class Hold(TypedDict):
    """A hold, with who placed it as the audit trail says, and a page of its recordings."""

    id: HoldRef
    tenant: TenantRef
    kind: HoldKind
    matter: str
    reason: str
    authority: str
    owner: str
    state: HoldState
    created_at: Moment
    placed_by: Who | None
    """Null where the vault rebuilt it."""
    review_at: Moment
    recordings_held: Count
    recordings_too_late: Count
    recordings: list[_Held]
    """The newest first: in a list up to 10, of one hold up to 1,000; what was just placed, all."""
    before: RecordingRef | None
    """Continues the recordings; null where they are complete."""
    release_requested_by: Who | None
    release_reason: str | None
    released_by: Who | None
    released_at: Moment | None
    grace_until: Moment | None
    shown: Sha256 | None
    """What an approval of this request names as `shown`; null if none is waited for."""


class HoldList(TypedDict):
    """Holds."""

    holds: list[Hold]


def render_hold(
    hold: model.CountedHold | model.Hold, members: Sequence[Member], *, more: bool = False, placed_by: str | None = None
) -> Hold:
    """Render a hold with some of its recordings; `more` tells whether there are others behind the last."""
    return render(
        Hold,
        hold,
        placed_by=placed_by,
        recordings_held=hold.held,
        recordings_too_late=hold.late,
        recordings=[_Held(id=each.recording, outcome="too_late" if each.too_late else "held") for each in members],
        before=members[-1].recording if more else None,
        shown=shown_digest(release_document(hold)) if hold.state is HoldState.RELEASE_REQUESTED else None,
    )


async def hold_answer(vault: Vault, hold: model.Hold) -> Hold:
    """Render a hold with all its recordings and with who placed it."""
    placed = await vault.catalog.placers([hold.id])
    members = [Member(recording=each, too_late=False) for each in hold.recordings]
    members += [Member(recording=each, too_late=True) for each in hold.too_late]
    return render_hold(hold, members, placed_by=placed.get(hold.id))


async def _answer(
    request: web.Request, hold: model.CountedHold, wanted: MembersPage | None = None, *, status: int = 200
) -> web.Response:
    """Answer with a hold and a page of its recordings, the first one unless another is wanted."""
    catalog, page = request.app[VAULT].catalog, wanted or MembersPage()
    before = query_id(page.before, "rec", "before")
    members = await catalog.members(hold.id, before=RecordingId(before) if before else None, limit=page.limit + 1)
    placed = await catalog.placers([hold.id])
    shown = render_hold(hold, members[: page.limit], more=len(members) > page.limit, placed_by=placed.get(hold.id))
    return await answer(request, shown, status=status)


@OPERATIONS(
    "POST /v1/holds",
    Act.HOLD_PLACE,
    told("What is held, and what came too late.", Hold, location=True, status=201),
    body=PlaceHold,
    problems=(404,),
)
async def place_hold(request: web.Request) -> web.Response:
    """Place a hold; the answer comes after a majority of the keyring's replicas has the pins."""
    vault, actor = await caller(request, Act.HOLD_PLACE)
    wanted = await body(request, PlaceHold)
    tenant = await one_tenant(vault, actor, Act.HOLD_PLACE, wanted.tenant, whose="recordings are held")
    recordings = tuple(RecordingId(checked_id(item, "rec", "recording")) for item in wanted.recordings)
    asked = wanted.into(HoldRequest, tenant=tenant, recordings=recordings)
    placed = await vault.holds.place(asked, actor=actor)
    shown = await hold_answer(vault, placed)
    return await answer(request, shown, status=201, headers={"Location": f"/v1/holds/{placed.id}"})


@OPERATIONS(
    "GET /v1/holds", Act.HOLD_LIST, told("Holds, newest first.", HoldList), query=Page, queries=("tenant", "limit")
)
async def list_holds(request: web.Request) -> web.Response:
    """List holds."""
    vault, wanted, tenant = await lister(request, Act.HOLD_LIST)
    found = await vault.catalog.counted_holds(tenant=tenant, limit=wanted.limit)
    identifiers = [hold.id for hold in found]
    placed = await vault.catalog.placers(identifiers)
    members = await vault.catalog.first_members(identifiers, most=_FIRST_FEW)
    holds = [
        render_hold(
            hold,
            members.get(hold.id, ()),
            more=hold.held + hold.late > _FIRST_FEW,
            placed_by=placed.get(hold.id),
        )
        for hold in found
    ]
    return await answer(request, HoldList(holds=holds))


async def _hold(request: web.Request, act: Act) -> tuple[model.CountedHold, Principal]:
    return await own(request, act, "hold", "hold", request.app[VAULT].catalog.counted_hold)


@OPERATIONS(
    "GET /v1/holds/{hold}",
    Act.HOLD_LIST,
    told("The hold; `before` continues its recordings.", Hold),
    query=MembersPage,
    queries=("before", "limit"),
)
async def show_hold(request: web.Request) -> web.Response:
    """Show one hold and a page of its recordings."""
    found, _ = await _hold(request, Act.HOLD_LIST)
    return await _answer(request, found, query(request, MembersPage))


@OPERATIONS("POST /v1/holds/{hold}/review", Act.HOLD_REVIEW, told("The hold.", Hold), body=ReviewHold)
async def review_hold(request: web.Request) -> web.Response:
    """Record that somebody looked, and when to look again."""
    found, actor = await _hold(request, Act.HOLD_REVIEW)
    wanted = await body(request, ReviewHold)
    reviewed = await request.app[VAULT].holds.review(found.id, next_review=wanted.at, note=wanted.note, actor=actor)
    return await _answer(request, reviewed)


@OPERATIONS(
    "POST /v1/holds/{hold}/release",
    Act.HOLD_RELEASE_REQUEST,
    told("The hold, waiting for the second person.", Hold, status=202),
    body=ReleaseHold,
)
async def request_release(request: web.Request) -> web.Response:
    """Ask for the release of a hold: the first of two people."""
    found, actor = await _hold(request, Act.HOLD_RELEASE_REQUEST)
    wanted = await body(request, ReleaseHold)
    asked = await request.app[VAULT].holds.request_release(found.id, reason=wanted.reason, actor=actor)
    return await _answer(request, asked, status=202)


@OPERATIONS(
    "POST /v1/holds/{hold}/approve",
    Act.HOLD_RELEASE_APPROVE,
    told("The hold, released or active again.", Hold),
    body=Approve,
)
async def decide_release(request: web.Request) -> web.Response:
    """Approve or reject a release: the second of two people; the first may withdraw it."""
    found, actor = await _hold(request, Act.HOLD_RELEASE_APPROVE)
    wanted = await body(request, Approve)
    decided = await request.app[VAULT].holds.decide_release(
        found.id, approve=wanted.approve, shown=wanted.shown, actor=actor
    )
    return await _answer(request, decided)
