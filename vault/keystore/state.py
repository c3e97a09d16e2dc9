"""The content of the keyring as a value, and its changes as functions: no disk, no provider, no clock.

Every change returns a new state in which the pages of untouched tenants are the same objects, so that a writer can tell
by identity which pages to write.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from vault.crypto import ggm, spans
from vault.crypto.ggm import Cover
from vault.crypto.spans import Runs, Span, Spans
from vault.errors import IntegrityError, Invalid, TooLate, Unavailable, UnderHold
from vault.format.keyring import TAG_BYTES
from vault.ids import TenantId
from vault.model import INDEX_LEAF, LEAVES, Cohort, Coordinate, Part, Pin, ShredPlan

_EVERY_LEAF: Final[Spans] = ((0, LEAVES - 1),)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def unix_ms(at: datetime) -> int:
    """Return whole milliseconds since 1970."""
    return (at - _EPOCH) // _MS


def from_unix_ms(ms: int) -> datetime:
    """Return the instant in UTC."""
    return _EPOCH + ms * _MS


Pins = Mapping[Cohort, Mapping[bytes, Runs]]
"""The pinned leaves of each cohort by tag; a cohort or a tag without any is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One tenant's trees and pins. A change leaves what it does not touch the same objects, cohort by cohort."""

    tenant: TenantId
    cohorts: Mapping[Cohort, Cover] = field(repr=False)
    pins: Pins


def gathered(pins: Iterable[Pin]) -> dict[Cohort, dict[bytes, Runs]]:
    """Return pins by cohort and tag; those of one tag that overlap or adjoin become one run."""
    found: defaultdict[Cohort, defaultdict[bytes, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for pin in pins:
        found[pin.cohort][pin.tag].append((pin.first, pin.last))
    return {cohort: {tag: Runs(spans.union(runs)) for tag, runs in by_tag.items()} for cohort, by_tag in found.items()}


def listed(pins: Pins, *, tags: Collection[bytes] | None = None) -> Iterator[Pin]:
    """Yield one pin for each run, with `tags` only for those under these."""
    for cohort, by_tag in pins.items():
        for tag, runs in by_tag.items():
            if tags is not None and tag not in tags:
                continue
            for first, last in runs.spans:
                yield Pin(cohort=cohort, first=first, last=last, tag=tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The whole content of the keyring; `swept_through` is the last period that a sweep destroyed."""

    keyring: bytes
    epoch: int
    revision: int
    fence: int
    generation: int
    cohort_width_ms: int
    last_sweep_ms: int | None
    swept_through: int | None
    lease_ms: int
    backup_key: bytes = field(repr=False)
    older_backup_keys: tuple[bytes, ...] = field(default=(), repr=False)
    trial: bool | None = None
    """Fixed when the keyring is made; no change below touches it."""
    pages: Mapping[TenantId, Page]

    def cover(self, cohort: Cohort) -> Cover | None:
        """Return the cohort's cover, or None if it has no tree."""
        page = self.pages.get(cohort.tenant)
        return page.cohorts.get(cohort) if page else None


def size(state: State) -> int:
    """Return the number of trees."""
    return sum(len(page.cohorts) for page in state.pages.values())


def pin_count(state: State) -> int:
    """Return the number of pins: of runs under one tag."""
    return sum(len(runs) for _, _, runs in _every_pin(state))


def _every_pin(state: State) -> Iterator[tuple[Cohort, bytes, Runs]]:
    for page in state.pages.values():
        for cohort, by_tag in page.pins.items():
            for tag, runs in by_tag.items():
                yield cohort, tag, runs


def plant(state: State, cohorts: Mapping[Cohort, bytes]) -> State:
    """Give each missing cohort a tree over its seed.

    TooLate if its period has been swept, Unavailable if its generation has passed: a new tree under an old coordinate
    would make shredded recordings look alive.
    """
    missing = {cohort: seed for cohort, seed in cohorts.items() if state.cover(cohort) is None}
    for cohort in missing:
        if cohort.generation > state.generation:
            raise Invalid("a cohort's generation is later than the keyring's")
        if cohort.generation < state.generation:
            raise Unavailable("the keyring's generation has changed; ask for a coordinate again")
        if cohort.part is not Part.METADATA and cohort.period <= _or_before(state.swept_through):
            raise TooLate("the cohort's period has been swept; it cannot get a new tree")
    pages = dict(state.pages)
    for tenant in {cohort.tenant for cohort in missing}:
        page = pages.get(tenant) or Page(tenant=tenant, cohorts={}, pins={})
        trees = {cohort: ggm.plant(seed) for cohort, seed in missing.items() if cohort.tenant == tenant}
        pages[tenant] = replace(page, cohorts={**page.cohorts, **trees})
    return replace(state, pages=pages)


def pinned(state: State, pins: Iterable[Pin]) -> State:
    """Add pins; TooLate unless every leaf of each has a key."""
    fresh = list(pins)
    for pin in fresh:
        check_pin(pin)
    added = gathered(fresh)
    for cohort, by_tag in added.items():
        cover = state.cover(cohort)
        living = () if cover is None else ggm.spans(cover)
        if any(spans.subtract(runs.spans, living) for runs in by_tag.values()):
            raise TooLate("a key to be held no longer exists; nothing was pinned")
    return _changed_pins(state, added, lambda there, more: spans.union((*there, *more)))


def towards(state: State, pinned: State, *, most: int) -> Iterator[State]:
    """Yield states from `state` to `pinned`, which has more pins: each has up to `most` runs more, or one cohort more.

    They come in order of cohort, so that each changes few pages.
    """
    fresh = [
        cohort
        for tenant, page in sorted(pinned.pages.items())
        for cohort in sorted(page.pins)
        if page.pins[cohort] is not state.pages[tenant].pins.get(cohort)
    ]
    room = most
    for at, cohort in enumerate(fresh):
        page, by_tag = state.pages[cohort.tenant], pinned.pages[cohort.tenant].pins[cohort]
        state = replace(
            state,
            pages={**state.pages, cohort.tenant: replace(page, pins={**page.pins, cohort: by_tag})},
        )
        room -= sum(len(runs) for runs in by_tag.values())
        following = fresh[at + 1] if at + 1 < len(fresh) else None
        if following is None or room < sum(
            len(runs) for runs in pinned.pages[following.tenant].pins[following].values()
        ):
            yield state
            room = most


def unpinned(state: State, pins: Iterable[Pin]) -> State:
    """Drop exactly these leaves under these tags; absent ones are fine."""
    return _changed_pins(state, gathered(pins), spans.subtract)


def _changed_pins(state: State, change: Pins, combine: Callable[[Spans, Spans], Spans]) -> State:
    pages = dict(state.pages)
    for cohort, by_tag in change.items():
        page = pages.get(cohort.tenant)
        if page is None:
            continue
        before = page.pins.get(cohort, {})
        after = dict(before)
        for tag, runs in by_tag.items():
            there = before[tag].spans if tag in before else ()
            combined = combine(there, runs.spans)
            if not combined:
                after.pop(tag, None)
            elif combined != there:
                after[tag] = Runs(combined)
        if after != before:
            pages[cohort.tenant] = replace(page, pins=_with(page.pins, cohort, after))
    return replace(state, pages=pages)


def _with(pins: Pins, cohort: Cohort, by_tag: Mapping[bytes, Runs]) -> Pins:
    others = {each: mine for each, mine in pins.items() if each != cohort}
    return {**others, cohort: by_tag} if by_tag else others


def lacks_no_pin(state: State, pins: Iterable[Pin]) -> bool:
    """Tell whether every leaf of these pins is pinned under its tag."""
    for cohort, by_tag in gathered(pins).items():
        page = state.pages.get(cohort.tenant)
        there = {} if page is None else page.pins.get(cohort, {})
        for tag, runs in by_tag.items():
            if spans.subtract(runs.spans, there[tag].spans if tag in there else ()):
                return False
    return True


def check_pin(pin: Pin) -> None:
    """Raise Invalid unless the pin's range and tag are possible."""
    if not 0 <= pin.first <= pin.last < LEAVES or len(pin.tag) != TAG_BYTES:
        raise Invalid("a pin is a range of leaves and a tag of 16 bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """The ranges of leaves that a shred takes from a state."""

    tenants: frozenset[TenantId]
    leaves: Mapping[Cohort, Spans]
    expired: Mapping[Cohort, Spans]
    due_through: int | None
    metadata_through: Mapping[TenantId, int]
    spared: frozenset[tuple[TenantId, int]]
    kept: Mapping[Cohort, Spans]
    yielding: Mapping[Cohort, Spans]
    """Leaves kept when their cohort is due, but not when their recording is named or the tenant is dropped."""

    def of(self, cohort: Cohort) -> Spans:
        """Return the leaves that are taken from `cohort`."""
        kept = self.kept.get(cohort, ())
        taken = (*self.leaves.get(cohort, ()), *spans.subtract(self.expired.get(cohort, ()), kept))
        if self.whole(cohort):
            if cohort.tenant not in self.tenants:
                kept = spans.union((*kept, *self.yielding.get(cohort, ())))
            taken = (*taken, *spans.subtract(_EVERY_LEAF, kept))
        return spans.union(taken)

    def whole(self, cohort: Cohort) -> bool:
        """Tell whether the cohort is due, or its tenant dropped: it loses every leaf that is not kept."""
        if cohort.tenant in self.tenants:
            return True
        if cohort.part is Part.METADATA and (cohort.tenant, cohort.period) in self.spared:
            return False
        through = self.metadata_through.get(cohort.tenant) if cohort.part is Part.METADATA else self.due_through
        return cohort.period <= _or_before(through)


def taking(state: State, plan: ShredPlan) -> Taking:
    """Return what `plan` takes from `state`.

    Invalid if the plan contradicts itself. UnderHold if a leaf it names is still pinned: pins decide, not the catalog
    that made the plan, which may be stale.
    """
    if min((*plan.metadata_through.values(), plan.due_through or 0)) < 0:
        raise Invalid("a sweep's period is not before 1970; nothing was deleted")
    if any(each.cohort.part is Part.METADATA and each.leaf == INDEX_LEAF for each in plan.leaves):
        raise Invalid("a blind index goes with its cohort, never before; nothing was deleted")
    if plan.leaves & plan.keep:
        raise Invalid("a shred names the same coordinate to take and to keep; nothing was deleted")
    leaves = _points(plan.leaves)
    kept: dict[Cohort, list[tuple[int, int]]] = defaultdict(list)
    yielding: dict[Cohort, list[tuple[int, int]]] = defaultdict(list)
    for cohort, tag, runs in _every_pin(unpinned(state, plan.unpin)):
        (yielding if tag in plan.yielding else kept)[cohort] += runs.spans
    for cohort, named in leaves.items():
        cover = state.cover(cohort)
        if cover is None:
            continue
        held = spans.intersect(named, spans.union(kept.get(cohort, ())))
        if spans.intersect(held, ggm.spans(cover)):
            raise UnderHold("the keyring holds a pin on a recording to be shredded; nothing was deleted")
    for cohort, saved in _points(plan.keep).items():
        kept[cohort] += saved
    return Taking(
        tenants=plan.drop_tenants,
        leaves=leaves,
        expired={cohort: spans.union(each) for cohort, each in plan.expired.items()},
        due_through=plan.due_through,
        metadata_through=plan.metadata_through,
        spared=plan.spared,
        kept={cohort: spans.union(each) for cohort, each in kept.items()},
        yielding={cohort: spans.union(each) for cohort, each in yielding.items()},
    )


def shredded(state: State, plan: ShredPlan, *, backup_key: bytes | None = None) -> State:
    """Return the state of the next epoch, without what `plan` takes. Errors as `taking`.

    Dropping a tenant raises the generation: if the tenant comes back, its new trees have new coordinates. Its page goes
    with its last pin. A rotation raises the generation in the same step, so no tree of the new generation is ever
    written under the old root version. A rotation also adds a new `backup_key`; the older ones stay for reading.
    """
    taken = taking(state, plan)
    state = unpinned(state, plan.unpin)
    carved = {tenant: _carved(page, taken) for tenant, page in state.pages.items()}
    pages = {tenant: page for tenant, page in carved.items() if page.cohorts}
    gone = not plan.drop_tenants.isdisjoint(state.pages)
    swept = plan.due_through is not None
    if backup_key is not None:
        older = (state.backup_key, *state.older_backup_keys)
        state = replace(state, backup_key=backup_key, older_backup_keys=older)
    return replace(
        state,
        epoch=state.epoch + 1,
        revision=0,
        generation=state.generation + (gone or plan.new_generation),
        last_sweep_ms=unix_ms(plan.at) if swept else state.last_sweep_ms,
        swept_through=_later(state.swept_through, plan.due_through),
        pages=pages,
    )


def has_due(state: State, plan: ShredPlan) -> bool:
    """Tell whether `plan` would make any leaf underivable. Errors as `taking`."""
    taken = taking(state, plan)
    return any(
        spans.intersect(ggm.spans(cover), taken.of(cohort))
        for page in state.pages.values()
        for cohort, cover in page.cohorts.items()
        if taken.whole(cohort) or cohort in taken.leaves or cohort in taken.expired
    )


def _carved(page: Page, taken: Taking) -> Page:
    cohorts: dict[Cohort, Cover] = {}
    for cohort, cover in page.cohorts.items():
        runs = taken.of(cohort)
        left = ggm.puncture(cover, runs) if runs else cover
        if left.nodes:
            cohorts[cohort] = cover if left.nodes == cover.nodes else left
    if all(cohorts.get(cohort) is cover for cohort, cover in page.cohorts.items()):
        return page
    pins = dict(page.pins)
    for cohort, by_tag in page.pins.items():
        if cohorts.get(cohort) is page.cohorts[cohort]:
            continue
        living = ggm.spans(cohorts[cohort]) if cohort in cohorts else ()
        staying = {tag: _living(runs, living) for tag, runs in by_tag.items()}
        if staying != by_tag:
            pins[cohort] = {tag: runs for tag, runs in staying.items() if len(runs)}
    return replace(page, cohorts=cohorts, pins={cohort: by_tag for cohort, by_tag in pins.items() if by_tag})


def _living(runs: Runs, living: Spans) -> Runs:
    """Return the runs of which any leaf lives."""
    left = tuple(run for run in runs.spans if spans.overlap(living, run))
    return runs if len(left) == len(runs) else Runs(left)


def retired(state: State, used: Mapping[Cohort, int], *, since: int, below: int) -> State:
    """Drop the leaves of the closed generations `since` to `below - 1` that were never reserved.

    `used` is the number of reserved leaves of each cohort. Reserved and pinned leaves stay, and the blind index of a
    month that keeps any leaf. A cohort without a remaining leaf is dropped.

    Invalid if this would touch the present generation; IntegrityError if the result is not exactly what must survive.
    """
    if below > state.generation:
        raise Invalid("the present generation cannot be retired")
    kept: dict[Cohort, list[Span]] = defaultdict(list)
    for cohort, count in used.items():
        if count:
            kept[cohort].append((0, count - 1))
            if cohort.part is Part.METADATA:
                kept[cohort].append((INDEX_LEAF, INDEX_LEAF))
    for cohort, _, runs in _every_pin(state):
        kept[cohort] += runs.spans
    left = {tenant: _retired(page, kept, range(since, below)) for tenant, page in state.pages.items()}
    return replace(state, pages={tenant: page for tenant, page in left.items() if page.cohorts})


def _retired(page: Page, kept: Mapping[Cohort, Iterable[Span]], generations: range) -> Page:
    cohorts = dict(page.cohorts)
    for cohort, cover in page.cohorts.items():
        if cohort.generation not in generations:
            continue
        staying = spans.union(kept.get(cohort, ()))
        left = ggm.retain(cover, staying)
        _check_survivors(cover, left, spans.subtract(_EVERY_LEAF, staying))
        if not left.nodes:
            del cohorts[cohort]
        elif left.nodes != cover.nodes:
            cohorts[cohort] = left
    same = all(cohorts.get(cohort) is cover for cohort, cover in page.cohorts.items())
    return page if same else replace(page, cohorts=cohorts)


def verify_shred(before: State, after: State, plan: ShredPlan, expected: State) -> None:
    """Raise IntegrityError unless `after`, as read back, is `before` minus exactly what `plan` takes.

    Survival is checked by arithmetic on leaves, which is independent of the carving of trees. Every leaf that had a key
    and is not taken must have one, no other leaf may have one, and every kept node must have its seed of the old cover.
    """
    facts = replace(after, pages={})
    if facts != replace(expected, pages={}) or after.epoch != before.epoch + 1:
        raise IntegrityError("the new epoch's index does not read back as written; nothing was destroyed")
    taken = taking(before, plan)
    cohorts = {cohort for state in (before, after) for page in state.pages.values() for cohort in page.cohorts}
    for cohort in cohorts:
        old, new = before.cover(cohort), after.cover(cohort)
        if old is None:
            raise IntegrityError("the new epoch holds a cohort the old one did not; nothing was destroyed")
        runs = taken.of(cohort)
        if new is not None and not runs and new == old:
            continue
        _check_survivors(old, new, runs)
    for tenant in before.pages.keys() | after.pages.keys():
        if _pins(after, tenant) != _pins(expected, tenant):
            raise IntegrityError("the new epoch does not keep exactly the surviving pins; nothing was destroyed")


def _check_survivors(old: Cover, new: Cover | None, taken: Spans) -> None:
    if (ggm.spans(new) if new else ()) != spans.subtract(ggm.spans(old), taken):
        raise IntegrityError("the new tree does not keep exactly the surviving keys; nothing was destroyed")
    if new is not None and not ggm.descends(old, new):
        raise IntegrityError("the new tree derives other keys than the old one; nothing was destroyed")


def _pins(state: State, tenant: TenantId) -> Pins:
    page = state.pages.get(tenant)
    return page.pins if page else {}


def _points(coordinates: Iterable[Coordinate]) -> dict[Cohort, Spans]:
    leaves: dict[Cohort, list[int]] = defaultdict(list)
    for coordinate in coordinates:
        leaves[coordinate.cohort].append(coordinate.leaf)
    return {cohort: spans.points(each) for cohort, each in leaves.items()}


def _or_before(period: int | None) -> int:
    return -1 if period is None else period


def _later(left: int | None, right: int | None) -> int | None:
    return right if left is None else left if right is None else max(left, right)
