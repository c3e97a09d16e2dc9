"""Erases recordings before their date: on a person's right or the controller's instruction, by two people.

Order: request (row) → approval (row) → intent → the rest as for every shred, see `vault.services.deletion.shredding`.
From the intent on, the recordings cannot be read. An approval that a crash left without its intent is carried out at
the next start or sweep. So is one that waited for holds to end. Both parts of a recording are erased: audio and
metadata. Erasures of different cases may name the same recording: one of them takes it, and the others record its
certificates.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from vault.access.permissions import Act
from vault.access.two_people import Deciders, Decision, check_shown, check_two
from vault.errors import Conflict, Invalid, NotFound, Unavailable, UnderHold
from vault.ids import CertificateId, RecordingId, TenantId, new_id
from vault.instants import rfc3339
from vault.model import AuditEvent, Coordinate, HoldTerms, Principal, Recording
from vault.ports.audit import AuditTrail
from vault.ports.erasures import Erasure, ErasureBasis, ErasureId, ErasureOutcome, ErasureRows, ErasureState
from vault.ports.keys import Keyring
from vault.ports.recordings import RecordingLookup, RecordingQuery
from vault.ports.revision import Revision
from vault.ports.shreds import Shred
from vault.ports.tenants import TokenLookup
from vault.protocol.facts.parties import ANONYMOUS, party
from vault.retention.decide import Due, Gone, Held, NotDue, decide_erasure
from vault.services.audit import event
from vault.services.certificates.content import Unnamed
from vault.services.deletion.shredding import Shredder, settling
from vault.services.people.access import Access
from vault.services.people.two_people import the_two
from vault.services.recordings.dossiers import Dossiers
from vault.services.recordings.search import Search, Wanted
from vault.services.surroundings import Surroundings

_TRIGGER = "erasure"
_MAX_RECORDINGS = 10_000
_MAX_HOLDS = 1_000_000
_PAGE = 1000
_LOOKED_AT = frozenset({ErasureOutcome.PENDING, ErasureOutcome.KEPT, ErasureOutcome.GONE})
_UNSETTLED = frozenset({ErasureOutcome.PENDING, ErasureOutcome.ERASING})


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureRequest:
    """What to erase: `recordings`, or all that match a number now. With `queue`, the erasure waits for holds to end."""

    tenant: TenantId
    basis: ErasureBasis
    case_reference: str
    recordings: tuple[RecordingId, ...] = ()
    caller: str | None = field(default=None, repr=False)
    called: str | None = field(default=None, repr=False)
    queue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureView:
    """An erasure, with what keeps its recordings now: holds, or a call that is still being recorded.

    `gone` are recordings that another shred deleted, with their certificates.
    """

    erasure: Erasure
    held: Mapping[RecordingId, Sequence[HoldTerms]]
    live: frozenset[RecordingId] = frozenset()
    gone: Mapping[RecordingId, Sequence[CertificateId]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingErasures:
    """How many approved erasures are not carried out yet, and what keeps all of them back.

    Without a `reason` they wait for holds on their recordings, or for the next sweep.
    """

    waiting: int = 0
    reason: str | None = None


class ErasingRows(ErasureRows, RecordingLookup, AuditTrail, TokenLookup, Protocol):
    """The catalog methods that erasures need."""


class Erasures:
    """Requests, decides and carries out erasures. Approvals within `window` of each other share one shred.

    The caller has checked that the erasure belongs to the caller's tenant.
    """

    def __init__(
        self,
        *,
        access: Access,
        catalog: ErasingRows,
        keyring: Keyring,
        dossiers: Dossiers,
        search: Search,
        shredder: Shredder,
        surroundings: Surroundings,
        window: timedelta,
    ) -> None:
        self._access = access
        self._catalog = catalog
        self._keyring = keyring
        self._dossiers = dossiers
        self._search = search
        self._shredder = shredder
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._window = window
        self._rounds = 0
        """How many rounds have begun."""
        self._carried_out = 0
        """The last round that succeeded."""

    # -- requesting ---------------------------------------------------------------------------------------------

    async def request(self, request: ErasureRequest, *, actor: Principal) -> ErasureView:
        """Request an erasure, as the first person; return what would go and what is held.

        If a named recording cannot go and the request does not wait: UnderHold with the holds, or Conflict for a call
        still being recorded. A search lists such recordings instead, unless it finds no others. NotFound, logged, if a
        named recording is missing or another tenant's. Conflict if an open erasure of the same case names one of the
        recordings; an erasure of another case may, because each person on a call has a right of their own.
        """
        if not request.case_reference.strip():
            raise Invalid("an erasure needs a case reference", hint="it is printed on the certificate")
        named = bool(request.recordings)
        if named == (request.caller is not None or request.called is not None):
            raise Invalid("an erasure names recordings, or a number to search for")
        rows = await self._named(request, actor) if named else await self._matching(request, actor)
        now = self._clock.now()
        erasure = Erasure(
            id=ErasureId(new_id("era", at=now, entropy=self._entropy)),
            tenant=request.tenant,
            basis=request.basis,
            case_reference=request.case_reference,
            queue=request.queue,
            state=ErasureState.REQUESTED,
            requested_by=actor.token_id,
            requested_at=now,
            recordings={row.id: ErasureOutcome.PENDING for row in rows},
        )
        view = await self._view(erasure)
        stays = {*view.held, *view.live}
        if not request.queue and (stays if named else len(stays) == len(rows)):
            await self._refuse(view, actor)
        detail = {"basis": erasure.basis.value, "case": erasure.case_reference, "recordings": len(rows)}
        await self._catalog.add_erasure(
            erasure,
            audit=[event("case.received", actor, tenant=erasure.tenant, target=erasure.id, detail=detail)],
        )
        return view

    async def _named(self, request: ErasureRequest, actor: Principal) -> Sequence[Recording]:
        if len(set(request.recordings)) != len(request.recordings) or len(request.recordings) > _MAX_RECORDINGS:
            raise Invalid(f"an erasure names up to {_MAX_RECORDINGS} different recordings")
        rows = [
            await self._access.own(actor, Act.ERASURE_REQUEST, self._catalog.recording, each, tenant=request.tenant)
            for each in request.recordings
        ]
        for row in rows:
            if not self._keys(row):
                raise Conflict(f"nothing of {row.id} is left to erase", hint="its certificates say since when")
        return rows

    async def _matching(self, request: ErasureRequest, actor: Principal) -> Sequence[Recording]:
        """Return the recordings that match a number; the number is not stored."""
        wanted = Wanted(caller=request.caller, called=request.called)
        if ANONYMOUS in {party(each) for each in (request.caller, request.called) if each is not None}:
            raise Invalid(
                "withheld numbers belong to many people, and an erasure is about one person",
                hint="find the calls by their time, and name their recordings",
            )
        await self._catalog.append_audit(
            [event("case.searched", actor, tenant=request.tenant, detail={"by": ", ".join(wanted.fields)})]
        )
        found: list[Recording] = []
        query = RecordingQuery(tenant=request.tenant, limit=_PAGE)
        while page := await self._search.page(query, wanted):
            found += page
            if len(found) > _MAX_RECORDINGS:
                raise Invalid(f"more recordings match than the {_MAX_RECORDINGS} that one erasure takes")
            query = dataclasses.replace(query, before=page[-1].id)
        if not found:
            raise NotFound(
                "no recording matches that number", hint="numbers without +44 and the like are read as UK ones"
            )
        return found

    def _keys(self, row: Recording) -> list[Coordinate]:
        return [place for place in (row.audio, row.metadata) if self._keyring.derivable(place)]

    async def _refuse(self, view: ErasureView, actor: Principal) -> None:
        erasure = view.erasure
        await self._catalog.append_audit(
            [event("case.refused", actor, outcome="refused", tenant=erasure.tenant, detail={"held": len(view.held)})]
        )
        holds = {hold.id: hold for each in view.held.values() for hold in each}
        if view.held:
            names = ", ".join(f"{hold.id} (matter {hold.matter}{_grace(hold)})" for hold in holds.values())
            released = bool(holds) and all(hold.grace_until for hold in holds.values())
            first_step = "ask again when the grace has passed" if released else "release the hold first"
            first = next(iter(view.held))
            more = f" and {len(view.held) - 1} more" if len(view.held) > 1 else ""
            raise UnderHold(
                f"{first}{more} must be kept: {names or 'the keyring pins it for a hold'}; nothing was erased",
                hint=f"{first_step}, or ask to wait for it: --queue",
            )
        raise Conflict(
            f"{next(iter(view.live))} is still being recorded; nothing was erased",
            hint="ask again when the call has ended, or ask to wait for it: --queue",
        )

    # -- deciding -----------------------------------------------------------------------------------------------

    async def approve(self, identifier: ErasureId, *, shown: str | None, actor: Principal) -> ErasureView:
        """Approve, as the second person, the erasure as it was `shown`; returns once the keys are gone and certified.

        Forbidden unless one of the two is the tenant's dpo and the other is compliance or a safeguarding lead.
        UnderHold if none of its recordings can go now and it does not wait. ChangedSince if it would now erase other
        recordings than were shown.
        """
        view = await self.show(identifier)
        found = view.erasure
        two = await the_two(self._catalog, found.requested_by, actor)
        _check_decidable(found, two)
        if not found.queue and {*view.held, *view.live} >= found.recordings.keys():
            await self._refuse(view, actor)
        check_shown(shown, erasure_document(view))
        await self._catalog.revise_erasure(identifier, self._decision(ErasureState.APPROVED, actor, two))
        await self._together()
        return await self.show(identifier)

    async def reject(self, identifier: ErasureId, *, actor: Principal) -> ErasureView:
        """Reject as the second person, or withdraw as the first person: nothing is erased."""
        rejected = await self._catalog.revise_erasure(identifier, self._decision(ErasureState.REJECTED, actor))
        return await self._view(rejected)

    def _decision(self, state: ErasureState, actor: Principal, two: Deciders | None = None) -> Revision[Erasure]:
        now = self._clock.now()

        def revision(before: Erasure) -> tuple[Erasure, Sequence[AuditEvent]]:
            _check_decidable(before, two)
            own = before.requested_by == actor.token_id
            name = "case.approved" if two else "case.withdrawn" if own else "case.refused"
            decided = dataclasses.replace(before, state=state, decided_by=actor.token_id, decided_at=now)
            return decided, [event(name, actor, tenant=before.tenant, target=before.id)]

        return revision

    async def _together(self) -> None:
        """Carry out approved erasures, in one shred with others approved within the window."""
        seen = self._rounds
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._shredder.turn())
            except Unavailable as error:
                raise Unavailable(
                    "another node is still shredding; the erasure is approved, and the next sweep carries it out",
                    retry_after_seconds=30,
                ) from error
            if self._carried_out > seen:
                return  # a round that began after this approval was durable has carried it out
            await asyncio.sleep(self._window.total_seconds())
            self._rounds += 1
            await self.carry_out()
            self._carried_out = self._rounds

    # -- carrying out -------------------------------------------------------------------------------------------

    async def carry_out(self) -> int:
        """Erase all approved recordings that no hold keeps; return how many. The caller entered `Shredder.alone`."""
        await self._shredder.resume()
        count = await self._round()
        # The first round takes a recording for one of the erasures that name it. The second marks it in the others.
        return count + await self._round() if count else 0

    async def _round(self) -> int:
        waiting = await self._waiting()
        if not waiting:
            return 0
        now = self._dossiers.now(self._clock.now())
        # Inside the writer: whether a recording is held cannot change between this check and the intent.
        async with self._keyring.writer() as writer:
            decided = await self._decided(waiting, now)
            changed = [after for before, after in zip(waiting, decided, strict=True) if before != after]
            if not any(ErasureOutcome.ERASING in each.recordings.values() for each in changed):
                for each in changed:
                    await self._catalog.revise_erasure(each.id, settling(each))
                return 0
            self._shredder.check_named()
            shred = Shred(
                id=new_id("shr", at=now, entropy=self._entropy), intended_at=now, trigger=_TRIGGER, due_through=None
            )
            receipt = await self._shredder.take(shred, writer, erasures=changed)
        count = await self._shredder.account(shred, receipt)
        await self._shredder.delete()
        return count

    async def _decided(self, waiting: Sequence[Erasure], now: datetime) -> Sequence[Erasure]:
        """Return each erasure's outcome. A recording that several erasures name goes for the first that was decided."""
        taken: set[RecordingId] = set()
        return [await self._decide(each, now, taken) for each in waiting]

    async def _decide(self, erasure: Erasure, now: datetime, taken: set[RecordingId]) -> Erasure:
        dossier = await self._dossiers.tenant(erasure.tenant)
        stays = ErasureOutcome.PENDING if erasure.queue else ErasureOutcome.KEPT
        outcomes = dict(erasure.recordings)
        for identifier in [each for each, outcome in outcomes.items() if outcome is ErasureOutcome.PENDING]:
            row = await self._catalog.recording(identifier)
            match decide_erasure(dossier.facts(row, erasing_since=erasure.decided_at), now=now):
                case Due() if identifier in taken:
                    pass  # a certificate names one case; this erasure is marked once the other one is done
                case Due():
                    outcomes[identifier] = ErasureOutcome.ERASING
                    taken.add(identifier)
                case Gone():
                    outcomes[identifier] = ErasureOutcome.GONE
                case Held() | NotDue():
                    outcomes[identifier] = stays
        state = erasure.state if _UNSETTLED & {*outcomes.values()} else ErasureState.DONE
        return dataclasses.replace(erasure, recordings=outcomes, state=state)

    async def ready(self) -> Sequence[Recording]:
        """Return the recordings that the next sweep erases first: two people approved it, and no hold keeps them."""
        now = self._dossiers.now(self._clock.now())
        decided = await self._decided(await self._waiting(), now)
        return [
            await self._catalog.recording(identifier)
            for erasure in decided
            for identifier, outcome in erasure.recordings.items()
            if outcome is ErasureOutcome.ERASING
        ]

    async def waiting(self, *, tenant: TenantId | None = None) -> WaitingErasures:
        """Return how many approved erasures wait, with `tenant` only that tenant's, and why."""
        count = sum(tenant in {None, each.tenant} for each in await self._waiting())
        try:
            self._shredder.check_named()
        except Unnamed as error:
            return WaitingErasures(waiting=count, reason=error.message if count else None)
        return WaitingErasures(waiting=count)

    async def _waiting(self) -> Sequence[Erasure]:
        """Return the approved erasures that are not carried out yet, in the order of their approval."""
        approved = await self._catalog.erasures(states=[ErasureState.APPROVED], limit=_MAX_RECORDINGS)
        waiting = [each for each in approved if ErasureOutcome.PENDING in each.recordings.values()]
        return sorted(waiting, key=lambda each: (each.decided_at or each.requested_at, each.id))

    # -- showing ------------------------------------------------------------------------------------------------

    async def show(self, identifier: ErasureId) -> ErasureView:
        """Return the erasure and what keeps its recordings now; NotFound."""
        return await self._view(await self._catalog.erasure(identifier))

    async def _view(self, erasure: Erasure) -> ErasureView:
        now = self._dossiers.now(self._clock.now())
        dossier = await self._dossiers.tenant(erasure.tenant)
        held: dict[RecordingId, Sequence[HoldTerms]] = {}
        live: set[RecordingId] = set()
        gone: dict[RecordingId, Sequence[CertificateId]] = {}
        for identifier in [each for each, outcome in erasure.recordings.items() if outcome in _LOOKED_AT]:
            row = await self._catalog.recording(identifier)
            facts = dossier.facts(row)
            match decide_erasure(facts, now=now):
                case Held(holds=holds):
                    held[identifier] = [hold for hold in facts.holds if hold.id in holds]
                case NotDue():
                    live.add(identifier)
                case Gone():
                    both = (row.certificate_id, row.metadata_certificate_id)
                    gone[identifier] = [*dict.fromkeys(each for each in both if each is not None)]
        return ErasureView(erasure=erasure, held=held, live=frozenset(live), gone=gone)


def _grace(hold: HoldTerms) -> str:
    return "" if hold.grace_until is None else f"; released, keeps until {rfc3339(hold.grace_until)}"


def erasure_document(view: ErasureView) -> dict[str, object]:
    """Return what an approver decides about: the request, the recordings that would stay, and those already gone."""
    erasure = view.erasure
    return {
        "erasure": erasure.id,
        "tenant": erasure.tenant,
        "basis": erasure.basis.value,
        "case_reference": erasure.case_reference,
        "queue": erasure.queue,
        "requested_by": erasure.requested_by,
        "recordings": list(erasure.recordings),
        "held": {recording: sorted(hold.id for hold in holds) for recording, holds in view.held.items()},
        "live": sorted(view.live),
        "gone": sorted(view.gone),
    }


def _check_decidable(erasure: Erasure, two: Deciders | None) -> None:
    """Raise unless the erasure may be decided: rejected, or approved by `two`."""
    if erasure.state is not ErasureState.REQUESTED:
        raise Conflict(f"{erasure.id} is already {erasure.state.value}")
    if two is not None:
        check_two(Decision.ERASURE, two, asked_by=erasure.requested_by, tenant=erasure.tenant)
