"""Holds over HTTP: place, list, show, review, and release by two people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, NotRequired, Self

from pydantic import Field, model_validator
from typing_extensions import TypedDict

from vault import model
from vault.access.permissions import Act
from vault.access.two_people import RELEASE_OF, shown_digest
from vault.ids import RecordingId
from vault.model import HoldKind, HoldState
from vault.ports.holds import Member
from vault.server.context import Admitted, checked_id, query_id
from vault.server.operation import Operations, answer
from vault.server.schemas import (
    Approve,
    Body,
    Count,
    HoldRef,
    Instant,
    Moment,
    Newest,
    RecordingRef,
    Refusal,
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
    """The earlier name of `review_at`; the next version no longer has it."""
    note: Words

    @model_validator(mode="after")
    def _once(self) -> Self:
        if (self.review_at is None) == (self.next_review is None):
            raise ValueError("review_at: give the date of the next review once")
        return self

    @property
    def at(self) -> datetime:
        """The date of the next review."""
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
    """The token that placed it; null if the vault rebuilt it."""
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
    """The value that an approval of this request repeats as `shown`; null if no approval is pending."""
    may_not_approve: NotRequired[Refusal]
    """Why this token may not approve the request; left out if it may, if nothing waits, and in other answers."""


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


async def _page(vault: Vault, hold: model.CountedHold, wanted: MembersPage | None = None) -> Hold:
    """Render a hold with a page of its recordings, the first one unless another is wanted."""
    page = wanted or MembersPage()
    before = query_id(page.before, "rec", "before")
    members = await vault.catalog.members(hold.id, before=RecordingId(before) if before else None, limit=page.limit + 1)
    placed = await vault.catalog.placers([hold.id])
    return render_hold(hold, members[: page.limit], more=len(members) > page.limit, placed_by=placed.get(hold.id))


async def _hold(request: Admitted) -> model.CountedHold:
    return await request.own("hold", request.vault.catalog.counted_hold)


@OPERATIONS(
    "POST /v1/holds",
    Act.HOLD_PLACE,
    answer("The hold, with what it protects and what it came too late for.", Hold, location=True, status=201),
    body=PlaceHold,
)
async def place_hold(request: Admitted, wanted: PlaceHold) -> Hold:
    """Place a hold; the answer comes after a majority of the keyring's replicas has the pins."""
    tenant = await request.one_tenant(wanted.tenant, whose="recordings are held")
    recordings = tuple(RecordingId(checked_id(item, "rec", "recording")) for item in wanted.recordings)
    asked = wanted.into(HoldRequest, tenant=tenant, recordings=recordings)
    return await hold_answer(request.vault, await request.vault.holds.place(asked, actor=request.actor))


@OPERATIONS("GET /v1/holds", Act.HOLD_LIST, answer("Holds, newest first.", HoldList), query=Newest)
async def list_holds(request: Admitted, wanted: Newest) -> HoldList:
    """List holds."""
    catalog = request.vault.catalog
    found = await catalog.counted_holds(tenant=await request.within(wanted.tenant), limit=wanted.limit)
    identifiers = [hold.id for hold in found]
    placed = await catalog.placers(identifiers)
    members = await catalog.first_members(identifiers, most=_FIRST_FEW)
    holds = [
        render_hold(
            hold,
            members.get(hold.id, ()),
            more=hold.held + hold.late > _FIRST_FEW,
            placed_by=placed.get(hold.id),
        )
        for hold in found
    ]
    return HoldList(holds=holds)


@OPERATIONS(
    "GET /v1/holds/{hold}",
    Act.HOLD_LIST,
    answer("The hold; `before` continues its recordings.", Hold),
    of=_hold,
    query=MembersPage,
)
async def show_hold(request: Admitted, hold: model.CountedHold, wanted: MembersPage) -> Hold:
    """Show one hold and a page of its recordings."""
    shown = await _page(request.vault, hold, wanted)
    if hold.state is not HoldState.RELEASE_REQUESTED:
        return shown
    decision, asked_by = RELEASE_OF[hold.kind], hold.release_requested_by
    return await request.to_approve(shown, decision, asked_by=asked_by, tenant=hold.tenant)


@OPERATIONS("POST /v1/holds/{hold}/review", Act.HOLD_REVIEW, answer("The hold.", Hold), of=_hold, body=ReviewHold)
async def review_hold(request: Admitted, hold: model.CountedHold, wanted: ReviewHold) -> Hold:
    """Record a review of the hold, with the date of the next one."""
    vault, actor = request.vault, request.actor
    return await _page(vault, await vault.holds.review(hold.id, next_review=wanted.at, note=wanted.note, actor=actor))


@OPERATIONS(
    "POST /v1/holds/{hold}/release",
    Act.HOLD_RELEASE_REQUEST,
    answer("The hold; a second person decides about its release.", Hold, status=202),
    of=_hold,
    body=ReleaseHold,
)
async def request_release(request: Admitted, hold: model.CountedHold, wanted: ReleaseHold) -> Hold:
    """Request the release of a hold, as the first of two people."""
    vault, actor = request.vault, request.actor
    return await _page(vault, await vault.holds.request_release(hold.id, reason=wanted.reason, actor=actor))


@OPERATIONS(
    "POST /v1/holds/{hold}/approve",
    Act.HOLD_RELEASE_APPROVE,
    answer("The hold, released or active again.", Hold),
    of=_hold,
    body=Approve,
)
async def decide_release(request: Admitted, hold: model.CountedHold, wanted: Approve) -> Hold:
    """Approve or reject a release as the second person, or withdraw it as the first."""
    vault, actor = request.vault, request.actor
    decided = await vault.holds.decide_release(hold.id, approve=wanted.approve, shown=wanted.shown, actor=actor)
    return await _page(vault, decided)
