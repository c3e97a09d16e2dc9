"""Places, reviews and releases holds. A hold is first a pin in the keyring and then a row; labels follow.

Placing: row `placing` → pins durable in the keyring → row `active` → answer → labels on the objects. A crash after the
first step is completed at the next start, so an answered hold is never lost and an unanswered one is never half placed.
The keyring's single writer orders holds and sweeps: whichever enters second sees the first one's result.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, Protocol

from vault.access.permissions import Act
from vault.access.two_people import RELEASE_OF, Deciders, check_shown, check_two
from vault.errors import Conflict, Invalid, NotFound, TooLate, Unavailable, VaultError
from vault.ids import HoldId, RecordingId, TenantId, id_bytes, new_id
from vault.instants import rfc3339
from vault.model import AuditEvent, Hold, HoldKind, HoldState, HoldTerms, Pin, Principal, Recording, RecordingState
from vault.ports.holds import HoldRows
from vault.ports.keys import Keyring
from vault.ports.objects import ObjectStore
from vault.ports.policies import PolicyLookup, PolicyRequest
from vault.ports.recordings import RecordingLookup
from vault.ports.tenants import TenantLookup, TokenLookup
from vault.retention.decide import check_not_sooner, check_release, check_review, in_force, suggest_review
from vault.retention.periods import Period
from vault.services.audit import event
from vault.services.people.access import Access
from vault.services.people.two_people import decide_by_two
from vault.services.surroundings import Surroundings

# -- labels -------------------------------------------------------------------------------------------------------
# Labels stored objects as held. The pin protects; the label follows after the hold's answer.
#
# A crash loses the queue: those objects are protected without a label.

_PAGE: Final = 500
_AT_ONCE: Final = 24
"""How many objects are labelled at a time: each waits for a disk or a bucket."""
_AGAIN_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


class Labels:
    """Labels the objects of what was held, in order, until it is done: an outage only makes it wait."""

    def __init__(self, *, catalog: RecordingLookup, store: ObjectStore) -> None:
        self._catalog = catalog
        self._store = store
        self._waiting: deque[RecordingId] = deque()
        self._work = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()

    def show(self, recordings: Sequence[RecordingId]) -> None:
        """Have the objects that these recordings have now say that they are held."""
        self._waiting.extend(recordings)
        if self._waiting:
            self._done.clear()
            self._work.set()

    async def settled(self, *, within: float) -> None:
        """Return once everything that was asked for is shown, or after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                await self._done.wait()
        except TimeoutError:
            logger.warning("holds are not shown on all objects", extra={"fields": {"recordings": len(self._waiting)}})

    async def run(self) -> None:
        """Label until cancelled."""
        while True:
            await self._work.wait()
            while self._waiting:
                page = list(islice(self._waiting, _PAGE))
                if not await self._labelled(page):
                    await asyncio.sleep(_AGAIN_SECONDS)
                    continue
                for _ in page:
                    self._waiting.popleft()
            self._work.clear()
            self._done.set()

    async def _labelled(self, page: Sequence[RecordingId]) -> bool:
        """Label what can be; False if the catalog or the store did not answer, and all of it is to be done again."""
        answered = True
        try:
            found = await self._catalog.object_names(page)
            names = iter([name for recording in page for name in found[recording]])
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._each(names)) for _ in range(_AT_ONCE)]
            if absent := sum(each.result() for each in workers):
                logger.warning(
                    "hold state not shown on objects that are not there", extra={"fields": {"objects": absent}}
                )
        except* Unavailable as errors:
            answered = False
            _warn("hold state not shown on objects yet", errors.exceptions[0])
        except* VaultError as errors:
            _warn("hold state not shown on some objects", errors.exceptions[0])
        return answered

    async def _each(self, names: Iterator[str]) -> int:
        """Label what comes; return how many objects were not there."""
        absent = 0
        for name in names:
            try:
                await self._store.set_held(name, held=True)
            except NotFound:
                absent += 1
        return absent


def _warn(what: str, error: Exception) -> None:
    logger.warning(what, extra={"fields": {"error": type(error).__name__}})


# -- holds --------------------------------------------------------------------------------------------------------

_MAX_RECORDINGS = 10_000
_AS_ASKED = frozenset({HoldState.PLACING, HoldState.ACTIVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest:
    """What the person who places a hold states."""

    tenant: TenantId
    kind: HoldKind
    matter: str
    reason: str
    authority: str
    owner: str
    review_at: datetime | None
    """None takes the earliest date that fits the kind and the calls."""
    recordings: tuple[RecordingId, ...]


def pins_of(keyring: Keyring, hold: Hold, recordings: Sequence[Recording]) -> list[Pin]:
    """Return the pins of this hold: on every part of each recording that has a key, tagged with the hold's id."""
    tag = id_bytes(hold.id)
    return [
        Pin(cohort=place.cohort, first=place.leaf, last=place.leaf, tag=tag)
        for recording in recordings
        for place in (recording.audio, recording.metadata)
        if keyring.derivable(place)
    ]


class HoldingRows(HoldRows, RecordingLookup, TenantLookup, PolicyLookup, TokenLookup, Protocol):
    """The catalog methods that holds need."""


class Holds:
    """Places, reviews and releases holds. The caller has checked whose hold it reviews or releases."""

    def __init__(
        self,
        *,
        access: Access,
        catalog: HoldingRows,
        keyring: Keyring,
        labels: Labels,
        surroundings: Surroundings,
        release_grace: Period,
        cap: Period,
    ) -> None:
        self._access = access
        self._catalog = catalog
        self._keyring = keyring
        self._labels = labels
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._release_grace = release_grace
        self._cap = cap

    async def place(self, request: HoldRequest, *, actor: Principal, act: Act = Act.HOLD_PLACE) -> Hold:
        """Place a hold; return it with what it protects and what came too late. TooLate if nothing was left.

        NotFound, logged, if a named recording is missing or another tenant's.
        """
        now = self._clock.now()
        self._check(request)
        rows = await self._access.all_own(
            actor, act, self._catalog.recordings_of, request.recordings, tenant=request.tenant
        )
        review_at = check_review(
            request.review_at or self._suggested(request.kind, rows, now),
            request.kind,
            now=now,
            latest=self._latest(rows),
        )
        hold = Hold(
            id=HoldId(new_id("hold", at=now, entropy=self._entropy)),
            tenant=request.tenant,
            kind=request.kind,
            matter=request.matter,
            reason=request.reason,
            authority=request.authority,
            owner=request.owner,
            state=HoldState.PLACING,
            created_at=now,
            review_at=review_at,
            recordings=tuple(row.id for row in rows),
        )
        await self._catalog.add_hold(
            hold,
            audit=[event("hold.placing", actor, tenant=hold.tenant, target=hold.id, detail=_summary(hold))],
        )
        return await self._decide(hold, actor)

    async def lock(self, recording: RecordingId, tenant: TenantId, *, actor: Principal) -> Hold:
        """Place the legal hold that a recorder asks for when it records, owned by the tenant's contact.

        Returns the existing one, if the recorder asked before and no release was requested since. TooLate if the
        recording is gone.
        """
        matter = f"lock-{recording}"
        for hold in await self._catalog.holds_on(recording):
            if (hold.kind, hold.matter) == (HoldKind.LEGAL, matter) and hold.state in _AS_ASKED:
                return await self.complete(hold.id, actor=actor)
        known = await self._catalog.tenant(tenant)
        request = HoldRequest(
            tenant=tenant,
            kind=HoldKind.LEGAL,
            matter=matter,
            reason="its recorder asked for a legal hold when it recorded it",
            authority=f"recorder of {known.controller}",
            owner=known.contact,
            review_at=None,
            recordings=(recording,),
        )
        return await self.place(request, actor=actor, act=Act.HOLD_OWN)

    def _latest(self, rows: Sequence[Recording]) -> datetime:
        """Return the instant after which no controller may keep any of these recordings longer."""
        return min(self._cap.after(row.started_at) for row in rows)

    def _suggested(self, kind: HoldKind, rows: Sequence[Recording], now: datetime) -> datetime:
        return min(
            suggest_review(kind, now=now, call_started=row.started_at, latest=self._cap.after(row.started_at))
            for row in rows
        )

    def _check(self, request: HoldRequest) -> None:
        for name in ("matter", "reason", "authority", "owner"):
            if not getattr(request, name).strip():
                raise Invalid(f"a hold needs a {name}")
        if not 1 <= len(set(request.recordings)) == len(request.recordings) <= _MAX_RECORDINGS:
            raise Invalid(f"a hold names 1 to {_MAX_RECORDINGS} different recordings")

    async def _decide(self, hold: Hold, actor: Principal | None) -> Hold:
        async with self._keyring.writer() as writer:
            kept = [row for row in await self._rows(hold) if self._holdable(row)]
            await writer.pin(pins_of(self._keyring, hold, kept))
        held = {row.id for row in kept}
        late = tuple(identifier for identifier in hold.recordings if identifier not in held)

        def revision(before: Hold) -> tuple[Hold, Sequence[AuditEvent]]:
            if before.state is not HoldState.PLACING:
                # Another node that started meanwhile has completed it from the same pins: its result counts.
                return before, []
            after = dataclasses.replace(
                before,
                state=HoldState.ACTIVE if kept else HoldState.RELEASED,
                recordings=tuple(row.id for row in kept),
                too_late=late,
                release_reason=None if kept else "everything it named was already shredded",
                grace_until=None if kept else before.created_at,
            )
            created = event("hold.created", actor, tenant=hold.tenant, target=hold.id, detail=_summary(after))
            too_late = [event("hold.too_late", actor, outcome="refused", tenant=hold.tenant, target=i) for i in late]
            return after, [created, *too_late] if kept else too_late

        decided = await self._catalog.revise_hold(hold.id, revision)
        if not kept:
            raise TooLate(
                f"nothing was left to hold: {', '.join(late[:3])} {'is' if len(late) == 1 else 'are'} already shredded",
                hint="the deletion certificates say when: callvault certificates list --recording ID",
            )
        self._labels.show([row.id for row in kept])
        return decided

    async def _rows(self, hold: Hold) -> Sequence[Recording]:
        found = await self._catalog.recordings_of(hold.recordings)
        return [found[identifier] for identifier in hold.recordings]

    async def in_force_on(self, recording: RecordingId) -> Sequence[HoldTerms]:
        """Return the holds that protect the recording now."""
        return [hold for hold in await self._catalog.holds_on(recording) if in_force(hold)]

    def _holdable(self, row: Recording) -> bool:
        gone = row.state in (RecordingState.SHREDDING, RecordingState.SHREDDED)
        return not gone and self._keyring.derivable(row.audio)

    async def review(self, hold: HoldId, *, next_review: datetime, note: str, actor: Principal) -> Hold:
        """Record that somebody reviewed the hold and why it stays."""
        found = await self._catalog.hold(hold)
        latest = None
        if found.kind is HoldKind.CLIENT_REQUEST:
            latest = self._latest(await self._rows(found))
        check_review(next_review, found.kind, now=self._clock.now(), latest=latest)

        def revision(before: Hold) -> tuple[Hold, Sequence[AuditEvent]]:
            if before.state is HoldState.RELEASED:
                raise Conflict(f"{hold} is released")
            check_not_sooner(before, next_review)
            dates = {"before": rfc3339(before.review_at), "after": rfc3339(next_review)}
            reviewed = event("hold.reviewed", actor, tenant=before.tenant, target=hold, detail={"note": note, **dates})
            return dataclasses.replace(before, review_at=next_review), [reviewed]

        return await self._catalog.revise_hold(hold, revision)

    async def request_release(self, hold: HoldId, *, reason: str, actor: Principal) -> Hold:
        """Request the release, as the first person, with a reason."""
        if not reason.strip():
            raise Invalid("a release needs a reason")

        def revision(before: Hold) -> tuple[Hold, Sequence[AuditEvent]]:
            if before.state is not HoldState.ACTIVE:
                state = before.state.value.replace("_", " ")
                raise Conflict(f"{hold} is {state}, so its release cannot be requested")
            asked = dataclasses.replace(
                before,
                state=HoldState.RELEASE_REQUESTED,
                release_requested_by=actor.token_id,
                release_reason=reason,
            )
            detail = {"reason": reason}
            return asked, [event("hold.release_requested", actor, tenant=before.tenant, target=hold, detail=detail)]

        return await self._catalog.revise_hold(hold, revision)

    async def decide_release(self, hold: HoldId, *, approve: bool, shown: str | None = None, actor: Principal) -> Hold:
        """Approve what was `shown`, as the second person, or reject; the first person may reject too.

        Pins stay until the grace has passed and a sweep removes them with the shred. Forbidden unless the two may
        decide about a hold of this kind. Conflict for a regulatory hold before its date. ChangedSince, and nothing is
        decided, if the hold is no longer the one that was shown.
        """

        async def asked_by() -> str | None:
            return (await self._catalog.hold(hold)).release_requested_by

        async def decide(two: Deciders) -> Hold:
            return await self._decide_release(hold, approve=approve, shown=shown, actor=actor, two=two)

        return await decide_by_two(self._catalog, asked_by, actor, decide)

    async def _decide_release(
        self, hold: HoldId, *, approve: bool, shown: str | None, actor: Principal, two: Deciders
    ) -> Hold:
        now = self._clock.now()
        decision: dict[str, Any] = (
            {
                "state": HoldState.RELEASED,
                "released_by": actor.token_id,
                "released_at": now,
                "grace_until": self._release_grace.after(now),
            }
            if approve
            else {"state": HoldState.ACTIVE, "release_requested_by": None, "release_reason": None}
        )

        def revision(before: Hold) -> tuple[Hold, Sequence[AuditEvent]]:
            if before.state is not HoldState.RELEASE_REQUESTED:
                raise Conflict(
                    f"no release of {hold} has been requested", hint=f"callvault holds release {hold} --reason …"
                )
            own = before.release_requested_by == actor.token_id
            if approve:
                check_shown(shown, release_document(before))
                check_two(RELEASE_OF[before.kind], two, asked_by=before.release_requested_by, tenant=before.tenant)
                check_release(before, now=now)
            name = "approved" if approve else "withdrawn" if own else "rejected"
            decided = dataclasses.replace(before, **decision)
            return decided, [event(f"hold.release_{name}", actor, tenant=before.tenant, target=hold)]

        return await self._catalog.revise_hold(hold, revision)

    async def complete(self, hold: HoldId, *, actor: Principal) -> Hold:
        """Return the hold once its pins are durable, setting them if it is still being placed; TooLate."""
        found = await self._catalog.hold(hold)
        return await self._decide(found, actor) if found.state is HoldState.PLACING else found

    async def recover(self, *, older_than: timedelta = timedelta(0)) -> None:
        """Complete holds whose placing a crash interrupted, or an outage `older_than` ago."""
        since = self._clock.now() - older_than
        for hold in await self._catalog.hold_terms(states=[HoldState.PLACING]):
            if hold.created_at > since:
                continue
            try:
                await self._decide(await self._catalog.hold(hold.id), None)
            except TooLate:
                logger.info("an interrupted hold came too late", extra={"fields": {"hold": hold.id}})

    async def _keeps(self, request: PolicyRequest) -> bool:
        """Tell whether the pins of a change of retention are needed: it is in force, or may come into force."""
        if request.is_open:
            return True
        changed = (await self._catalog.tenant(request.tenant)).retention_changed
        return changed is not None and changed.request == request.id

    async def expired_pins(self, *, now: datetime) -> list[Pin]:
        """Return the pins whose hold is released and past its grace, which a sweep may drop.

        A pin is freed only if this catalog has its hold as released, so that a stale catalog frees nothing.
        """
        by_tag: dict[bytes, list[Pin]] = {}
        for pin in self._keyring.pins():
            by_tag.setdefault(pin.tag, []).append(pin)
        free: list[Pin] = []
        requests = {id_bytes(each.id): each for each in await self._catalog.policy_requests()}
        holds = await self._catalog.terms_of([HoldId(f"hold_{tag.hex()}") for tag in by_tag if tag not in requests])
        for tag, pins in by_tag.items():
            if tag in requests:
                free += [] if await self._keeps(requests[tag]) else pins
                continue
            hold = holds.get(HoldId(f"hold_{tag.hex()}"))
            if hold is None:
                logger.warning("a pin's hold is not in the catalog; it stays", extra={"fields": {"hold": tag.hex()}})
                continue
            if hold.state is HoldState.RELEASED and (hold.grace_until is None or hold.grace_until <= now):
                free += pins
        return free


def release_document(hold: Hold) -> dict[str, object]:
    """Return what an approver of a release decides about: the hold without its state."""
    return {
        "hold": hold.id,
        "tenant": hold.tenant,
        "kind": hold.kind.value,
        "matter": hold.matter,
        "reason": hold.reason,
        "authority": hold.authority,
        "owner": hold.owner,
        "review_at": rfc3339(hold.review_at),
        "recordings": list(hold.recordings),
        "release_requested_by": hold.release_requested_by,
        "release_reason": hold.release_reason,
    }


def _summary(hold: Hold) -> dict[str, object]:
    return {"kind": hold.kind.value, "matter": hold.matter, "recordings": len(hold.recordings)}
