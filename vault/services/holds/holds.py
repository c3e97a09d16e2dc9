"""Places, reviews and releases holds. A hold is a row and then its pins in the keyring; labels follow the answer.

Placing: row `placing` → pins durable in the keyring → row `active` → answer → labels on the objects. After a crash the
next start completes the placing, so an answered hold is never lost and an unanswered one is never half placed. The
keyring's single writer orders holds and sweeps: the second one sees the result of the first.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from vault.access.permissions import Act
from vault.access.two_people import RELEASE_OF, Deciders, check_shown, check_two
from vault.crypto.spans import points
from vault.errors import Conflict, Invalid, NotFound, TooLate, Unavailable, VaultError
from vault.ids import HoldId, RecordingId, TenantId, id_bytes, new_id
from vault.instants import rfc3339
from vault.model import (
    AuditEvent,
    Cohort,
    Coordinate,
    CountedHold,
    Hold,
    HoldKind,
    HoldState,
    HoldTerms,
    Pin,
    Principal,
    Recording,
    RecordingKeys,
    RecordingState,
)
from vault.ports.cluster import ClusterLocks
from vault.ports.holds import HoldPages, HoldRows, HoldTermsLookup, LabelRows, Unlabelled
from vault.ports.keys import Keyring
from vault.ports.objects import ObjectStore
from vault.ports.policies import PolicyLookup, PolicyRequest
from vault.ports.recordings import RecordingsLookup
from vault.ports.tenants import TenantLookup, TokenLookup
from vault.retention.decide import check_not_sooner, check_release, check_review, in_force, suggest_review
from vault.retention.periods import Period
from vault.services.audit import event
from vault.services.people.access import Access
from vault.services.people.two_people import decide_by_two
from vault.services.surroundings import Surroundings

# -- labels -------------------------------------------------------------------------------------------------------
# A label marks a stored object as held. The pin protects the object; its label follows after the hold's answer.
#
# The transaction of a hold or its release also stores in the catalog that its labels are due, so a crash loses none.
# Order: label a page of recordings → move the hold's place in the catalog behind the page. After a crash in between,
# the page is labelled again. The labels of a released hold are removed once the keyring has none of its pins.

_PAGE: Final = 500
_AT_ONCE: Final = 24
"""How many objects are labelled at a time; each waits for a disk or a bucket."""
_LOOK_SECONDS: Final = 5.0
"""How often to look for due labels of another process, and for released holds whose pins are gone, in seconds."""
_AGAIN_LOOKS: Final = 12
"""After how many looks a failed label is tried again."""
_GIVE_WAY_SECONDS: Final = 5.0
"""How many seconds a label waits at most for answers under way."""
_LOCK: Final = "labels"

logger = logging.getLogger(__name__)


class LabellingRows(LabelRows, RecordingsLookup, Protocol):
    """The catalog methods that labels need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The holds with due labels, and the released holds whose pins a sweep has not dropped yet."""

    ready: list[Unlabelled]
    pinned: set[HoldId]


class Labels:
    """Sets and removes the labels of held and released recordings; an outage only delays it."""

    def __init__(self, *, catalog: LabellingRows, keyring: Keyring, store: ObjectStore, locks: ClusterLocks) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._store = store
        self._locks = locks
        self._woken = asyncio.Event()
        self._done = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self._asked = 0

    def wake(self) -> None:
        """Label now, because a hold was placed or a released one has lost its pins."""
        self._done.clear()
        self._woken.set()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Pause labelling inside the context, while a client waits for the answer to a hold."""
        self._asked += 1
        self._free.clear()
        try:
            yield
        finally:
            self._asked -= 1
            if not self._asked:
                self._free.set()

    async def _give_way(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_GIVE_WAY_SECONDS):
                await self._free.wait()

    async def settled(self, *, within: float) -> None:
        """Return once no hold has due labels, or after `within` seconds."""
        self.wake()
        try:
            async with asyncio.timeout(within):
                await self._done.wait()
        except TimeoutError:
            logger.warning("holds are not shown on all objects; the next start continues")

    async def run(self) -> None:
        """Set and remove due labels until cancelled."""
        looks = 0
        while True:
            self._woken.clear()
            try:
                if await self._round(again=looks % _AGAIN_LOOKS == 0) and not self._woken.is_set():
                    self._done.set()
            except VaultError as error:
                logger.warning("hold state not shown on objects yet", extra={"fields": {"why": error.code}})
            looks += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._woken.wait()

    async def _round(self, *, again: bool) -> bool:
        """Set or remove the due labels; False if some are left that could be set now."""
        if not (await self._work()).ready and not again:
            return True
        async with self._locks.try_hold(_LOCK) as lock:
            if lock is None:  # another process labels
                return False
            work = await self._work()
            # A hold of which no object takes a label keeps none from the holds after it.
            labelled = [await self._label(hold, work.pinned) for hold in work.ready]
            if again:
                await self._try_again(work.pinned)
        return all(labelled)

    async def _work(self) -> _Work:
        tags: dict[TenantId, Collection[bytes]] = {}
        work = _Work(ready=[], pinned=set())
        for each in await self._catalog.unlabelled_holds():
            if each.released and each.tenant not in tags:
                tags[each.tenant] = self._keyring.tags(each.tenant)
            if each.released and id_bytes(each.hold) in tags[each.tenant]:
                work.pinned.add(each.hold)
            else:
                work.ready.append(each)
        return work

    async def _label(self, hold: Unlabelled, pinned: Collection[HoldId]) -> bool:
        """Label one hold's objects from its place in the catalog on; False if no object of a page takes its label."""
        place = hold.through
        while page := await self._catalog.to_label(hold.hold, after=place, limit=_PAGE):
            failed = await self._show(page, pinned)
            if failed is None:
                return False
            # Labels first: the other order would lose the page's labels to a crash between the two.
            if not await self._catalog.labelled(hold, through=page[-1], before=place, again=failed):
                return True  # the hold was released meanwhile, so its labels are due again
            place = page[-1]
        await self._catalog.labelled(hold, through=None, before=place, again=())
        return True

    async def _try_again(self, pinned: Collection[HoldId]) -> None:
        """Label the recordings whose labels failed before."""
        after: RecordingId | None = None
        while page := await self._catalog.to_label_again(after=after, limit=_PAGE):
            failed = await self._show(page, pinned)
            if failed is not None:
                await self._catalog.labelled_again([each for each in page if each not in failed])
            after = page[-1]

    async def _show(self, page: Sequence[RecordingId], pinned: Collection[HoldId]) -> Collection[RecordingId] | None:
        """Label the objects of these recordings; return the recordings to repeat, None if no object takes its label.

        An open recording is always repeated, because its last objects do not exist yet. Unavailable if the store is not
        in its place.
        """
        rows = await self._catalog.keys_of(page)
        held = await self._catalog.protected(page, pinned=pinned)
        objects = await self._catalog.object_names(page)
        there = [each for each in page if rows[each].state not in _GONE]
        failed = {each for each in there if rows[each].state is RecordingState.OPEN}
        waiting = deque((each, name) for each in there for name in objects[each])
        errors: list[VaultError] = []
        labelled = 0

        async def work() -> None:
            nonlocal labelled
            while waiting:
                recording, name = waiting.popleft()
                await self._give_way()
                try:
                    await self._store.set_held(name, held=recording in held)
                    labelled += 1
                except NotFound:
                    # The object was deleted meanwhile, or is lost. A label cannot show that; `verify` does.
                    labelled += 1
                except VaultError as error:
                    # Continue with the others: one bad object must not prevent the labels of the rest.
                    failed.add(recording)
                    errors.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
        if errors:
            fields = {"objects": len(errors), "why": errors[0].code}
            logger.warning("hold state not shown on some objects yet", extra={"fields": fields})
        if labelled or not any(isinstance(each, Unavailable) for each in errors):
            return failed
        await self._store.still_there()
        return None


# -- holds --------------------------------------------------------------------------------------------------------

_MAX_RECORDINGS = 10_000
_GONE = frozenset({RecordingState.SHREDDING, RecordingState.SHREDDED})
_AS_ASKED = frozenset({HoldState.PLACING, HoldState.ACTIVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest:
    """A hold as its placer requests it."""

    tenant: TenantId
    kind: HoldKind
    matter: str
    reason: str
    authority: str
    owner: str
    review_at: datetime | None
    """None takes the earliest date that fits the kind and the calls."""
    recordings: tuple[RecordingId, ...]


def pins_of(keyring: Keyring, hold: Hold, recordings: Sequence[Recording | RecordingKeys]) -> list[Pin]:
    """Return the pins of this hold: on every part of each recording that has a key, tagged with the hold's id.

    Keys that adjoin are one pin. So a hold on everything of a period is one pin, or a few where something is gone.
    """
    tag = id_bytes(hold.id)
    places = (place for recording in recordings for place in (recording.audio, recording.metadata))
    return [
        Pin(cohort=cohort, first=first, last=last, tag=tag)
        for cohort, leaves in living(keyring, places).items()
        for first, last in points(leaves)
    ]


def living(keyring: Keyring, places: Iterable[Coordinate]) -> Mapping[Cohort, AbstractSet[int]]:
    """Return the leaves of these that have a key, by cohort."""
    leaves: defaultdict[Cohort, list[int]] = defaultdict(list)
    for place in places:
        leaves[place.cohort].append(place.leaf)
    return {cohort: keyring.living(cohort, each) for cohort, each in leaves.items()}


class HoldingRows(
    HoldRows, RecordingsLookup, TenantLookup, PolicyLookup, TokenLookup, HoldTermsLookup, HoldPages, Protocol
):
    """The catalog methods that holds need."""


class Holds:
    """Places, reviews and releases holds. The caller has checked that the hold belongs to the actor's tenant."""

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
        """Place a hold; return it with the recordings it protects and those it came too late for.

        TooLate if it came too late for all of them. NotFound, logged, if a named recording is missing or another
        tenant's.
        """
        self._check(request)
        with self._labels.waiting():
            return await self._place(request, actor, act)

    async def _place(self, request: HoldRequest, actor: Principal, act: Act) -> Hold:
        now = self._clock.now()
        rows = await self._access.all_own(actor, act, self._catalog.keys_of, request.recordings, tenant=request.tenant)
        starts = {row.started_at for row in rows}
        review_at = check_review(
            request.review_at or self._suggested(request.kind, starts, now),
            request.kind,
            now=now,
            latest=self._cap.after(min(starts)),  # no controller may keep the first of them longer
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
            audit=[event("hold.placing", actor, tenant=hold.tenant, target=hold.id, detail=_summary(hold, len(rows)))],
        )
        return await self._decide(hold, actor)

    async def lock(self, recording: RecordingId, tenant: TenantId, *, actor: Principal) -> Hold:
        """Place the legal hold that a recorder requests with its recording; its owner is the tenant's contact.

        Returns the existing hold if the recorder requested one before and its release was not requested since. TooLate
        if the recording is gone.
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

    def _suggested(self, kind: HoldKind, starts: Collection[datetime], now: datetime) -> datetime:
        return min(suggest_review(kind, now=now, call_started=start, latest=self._cap.after(start)) for start in starts)

    def _check(self, request: HoldRequest) -> None:
        for name in ("matter", "reason", "authority", "owner"):
            if not getattr(request, name).strip():
                raise Invalid(f"a hold needs a {name}")
        if not 1 <= len(set(request.recordings)) == len(request.recordings) <= _MAX_RECORDINGS:
            raise Invalid(f"a hold names 1 to {_MAX_RECORDINGS} different recordings")

    async def _decide(self, hold: Hold, actor: Principal | None) -> Hold:
        async with self._keyring.writer() as writer:
            found = await self._catalog.keys_of(hold.recordings)
            there = [row for row in map(found.__getitem__, hold.recordings) if row.state not in _GONE]
            alive = living(self._keyring, (row.audio for row in there))
            kept = [row for row in there if row.audio.leaf in alive[row.audio.cohort]]
            await writer.pin(pins_of(self._keyring, hold, kept))
        held = {row.id for row in kept}
        late = tuple(identifier for identifier in hold.recordings if identifier not in held)
        terms: dict[str, Any] = {
            "state": HoldState.ACTIVE if kept else HoldState.RELEASED,
            "release_reason": None if kept else "every recording it named was already shredded",
            "grace_until": None if kept else hold.created_at,
        }
        created = event("hold.created", actor, tenant=hold.tenant, target=hold.id, detail=_summary(hold, len(kept)))
        missed = [event("hold.too_late", actor, outcome="refused", tenant=hold.tenant, target=each) for each in late]
        told = [created, *missed] if kept else missed
        recordings = tuple(row.id for row in kept)

        # If another node that started meanwhile has completed it from the same pins, that node's result counts.
        def some_late(before: Hold) -> tuple[Hold, Sequence[AuditEvent]]:
            if before.state is not HoldState.PLACING:
                return before, []
            return dataclasses.replace(before, **terms, recordings=recordings, too_late=late), told

        def none_late(before: CountedHold) -> tuple[CountedHold, Sequence[AuditEvent]]:
            if before.state is not HoldState.PLACING:
                return before, []
            return dataclasses.replace(before, **terms), told

        if late:
            decided = await self._catalog.revise_hold(hold.id, some_late)
        else:
            # The recordings of the hold do not change, so its thousands of rows are neither read nor written again.
            settled = await self._catalog.revise_terms(hold.id, none_late)
            decided = dataclasses.replace(hold, **{**terms, "state": settled.state})
        if not kept:
            raise TooLate(
                f"nothing was left to hold: {', '.join(late[:3])} {'is' if len(late) == 1 else 'are'} already shredded",
                hint="the deletion certificates say when: callvault certificates list --recording ID",
            )
        self._labels.wake()
        return decided

    async def in_force_on(self, recording: RecordingId) -> Sequence[HoldTerms]:
        """Return the holds that protect the recording now."""
        return [hold for hold in await self._catalog.holds_on(recording) if in_force(hold)]

    async def review(self, hold: HoldId, *, next_review: datetime, note: str, actor: Principal) -> CountedHold:
        """Record that the actor reviewed the hold, why it stays, and when it is reviewed next."""
        found = await self._catalog.counted_hold(hold)
        latest = None
        if found.kind is HoldKind.CLIENT_REQUEST:
            earliest = await self._catalog.earliest_start(hold)
            latest = None if earliest is None else self._cap.after(earliest)
        check_review(next_review, found.kind, now=self._clock.now(), latest=latest)

        def revision(before: CountedHold) -> tuple[CountedHold, Sequence[AuditEvent]]:
            if before.state is HoldState.RELEASED:
                raise Conflict(f"{hold} is released")
            check_not_sooner(before, next_review)
            dates = {"before": rfc3339(before.review_at), "after": rfc3339(next_review)}
            reviewed = event("hold.reviewed", actor, tenant=before.tenant, target=hold, detail={"note": note, **dates})
            return dataclasses.replace(before, review_at=next_review), [reviewed]

        return await self._catalog.revise_terms(hold, revision)

    async def request_release(self, hold: HoldId, *, reason: str, actor: Principal) -> CountedHold:
        """Request the release, as the first person, with a reason."""
        if not reason.strip():
            raise Invalid("a release needs a reason")

        def revision(before: CountedHold) -> tuple[CountedHold, Sequence[AuditEvent]]:
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

        return await self._catalog.revise_terms(hold, revision)

    async def decide_release(
        self, hold: HoldId, *, approve: bool, shown: str | None = None, actor: Principal
    ) -> CountedHold:
        """Approve the release as it was `shown`, as the second person, or reject it; the first person may reject too.

        Pins stay until the grace has passed and a sweep removes them with the shred. Forbidden unless the two may
        decide about a hold of this kind. Conflict for a regulatory hold before its date. ChangedSince, and nothing is
        decided, if the hold changed since it was shown.
        """

        async def asked_by() -> str | None:
            return (await self._catalog.counted_hold(hold)).release_requested_by

        async def decide(two: Deciders) -> CountedHold:
            return await self._decide_release(hold, approve=approve, shown=shown, actor=actor, two=two)

        return await decide_by_two(self._catalog, asked_by, actor, decide)

    async def _decide_release(
        self, hold: HoldId, *, approve: bool, shown: str | None, actor: Principal, two: Deciders
    ) -> CountedHold:
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

        def revision(before: CountedHold) -> tuple[CountedHold, Sequence[AuditEvent]]:
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

        return await self._catalog.revise_terms(hold, revision)

    async def complete(self, hold: HoldId, *, actor: Principal) -> Hold:
        """Return the hold once its pins are durable, setting them if it is still being placed; TooLate."""
        found = await self._catalog.hold(hold)
        return await self._decide(found, actor) if found.state is HoldState.PLACING else found

    async def recover(self, *, older_than: timedelta = timedelta(0)) -> None:
        """Complete holds that have been in state `placing` for longer than `older_than`."""
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
        """Return the pins that a sweep may drop, because their hold is released and past its grace.

        The release must be in this catalog, so that a stale catalog frees no pin.
        """
        tags = self._keyring.tags()
        free: set[bytes] = set()
        requests = {id_bytes(each.id): each for each in await self._catalog.policy_requests()}
        holds = await self._catalog.terms_of([HoldId(f"hold_{tag.hex()}") for tag in tags if tag not in requests])
        for tag in tags:
            if tag in requests:
                if not await self._keeps(requests[tag]):
                    free.add(tag)
                continue
            hold = holds.get(HoldId(f"hold_{tag.hex()}"))
            if hold is None:
                logger.warning("a pin's hold is not in the catalog; it stays", extra={"fields": {"hold": tag.hex()}})
                continue
            if hold.state is HoldState.RELEASED and (hold.grace_until is None or hold.grace_until <= now):
                free.add(tag)
        return list(self._keyring.pins(tags=free)) if free else []


def release_document(hold: CountedHold | Hold) -> dict[str, object]:
    """Return the document that an approver of a release decides about: the hold without its state.

    The recordings of a placed hold never change, except that some may turn out to be lost. So the document has only
    their number.
    """
    return {
        "hold": hold.id,
        "tenant": hold.tenant,
        "kind": hold.kind.value,
        "matter": hold.matter,
        "reason": hold.reason,
        "authority": hold.authority,
        "owner": hold.owner,
        "review_at": rfc3339(hold.review_at),
        "recordings_held": hold.held,
        "recordings_too_late": hold.late,
        "release_requested_by": hold.release_requested_by,
        "release_reason": hold.release_reason,
    }


def _summary(hold: Hold, recordings: int) -> dict[str, object]:
    return {"kind": hold.kind.value, "matter": hold.matter, "recordings": recordings}
