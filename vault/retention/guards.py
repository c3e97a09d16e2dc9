"""What stops a sweep: a clock that jumped ahead, or a tenant whose sweep takes too much before its own date.

A clock jump is a mass shred of everybody, so it stops the whole sweep; the last sweep, recorded in the keyring, says
how far `now` may be ahead. Whatever goes on the date that was fixed when it was recorded is ordinary, however much of
it there is on one day. What goes earlier than that - because a contract ended or a policy became shorter - is counted,
tenant by tenant, and stops that tenant alone. Going past a guard takes two people.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from vault.ids import TenantId
from vault.model import HoldState, Part
from vault.retention.decide import PARTS, Due, Facts, Ground, decide_parts, falls_due
from vault.retention.periods import format_duration
from vault.retention.policy import month_end


class Guard(enum.StrEnum):
    """Which guard stopped the sweep."""

    CLOCK_JUMP = "clock_jump"
    MASS_SHRED = "mass_shred"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tripped:
    """What must not be swept: everything, or what of `tenant` goes before its date.

    `early` of its `live` recordings would. `reason` is fit for the operator and the audit trail.
    """

    guard: Guard
    reason: str
    tenant: TenantId | None = None
    early: int = 0
    live: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far a sweep may reach.

    `max_jump` bounds the distance from the last sweep, `max_share` (0 to 1) which share of the tenant's live recordings
    that were there when it was decided may go before the date that was fixed when they were recorded. With 1, none is
    too much.
    """

    max_jump: timedelta
    max_share: float


def check_clock(*, now: datetime, last_sweep_at: datetime | None, limits: Limits) -> Tripped | None:
    """Return what forbids a sweep at `now`, or None.

    The first sweep of a vault (`last_sweep_at` None) has no distance to measure; a `now` before the last sweep is
    harmless, see `effective_now`.
    """
    if last_sweep_at is None or now - last_sweep_at <= limits.max_jump:
        return None
    ahead, bound = format_duration(now - last_sweep_at), format_duration(limits.max_jump)
    return Tripped(
        guard=Guard.CLOCK_JUMP,
        reason=f"the clock is {ahead} ahead of the last sweep and the limit is {bound}",
    )


def early_parts(facts: Facts, *, now: datetime, last_sweep_at: datetime | None) -> frozenset[Part]:
    """Return the parts that a sweep at `now` takes on another ground than the date fixed at capture.

    Audio has that date in its coordinate, metadata in what was agreed for its month. Metadata that is due by its
    tenant's policy, but was already at the last sweep and was not taken then, is due because the policy became shorter.
    An erasure is never counted: two people saw each recording of it.
    """
    return frozenset(_early_grounds(facts, now=now, last_sweep_at=last_sweep_at))


def early_by(facts: Facts, *, now: datetime, last_sweep_at: datetime | None) -> frozenset[datetime]:
    """Return which decisions take any of `early_parts`, each by the instant up to which it counts what there was.

    Only what was captured up to it is the whole of which the guard takes a share: whoever records afterwards would
    make the share as small as they like.
    """
    found = _early_grounds(facts, now=now, last_sweep_at=last_sweep_at)
    return frozenset(_decided(facts, part, ground, now=last_sweep_at or now) for part, ground in found.items())


def _early_grounds(facts: Facts, *, now: datetime, last_sweep_at: datetime | None) -> Mapping[Part, Ground]:
    return {
        part: decision.ground
        for part, decision in decide_parts(facts, now=now).items()
        if isinstance(decision, Due)
        and decision.ground is not Ground.ERASURE
        and _early(facts, part, now=now, last_sweep_at=last_sweep_at)
    }


def _decided(facts: Facts, part: Part, ground: Ground, *, now: datetime) -> datetime:
    """Return up to when a decision counts what there was; `now` for a policy that names no such instant."""
    clocks, month = facts.clocks, facts.recording.metadata.cohort.period
    if ground is Ground.CONTRACT_END:
        return clocks.contract_approved or now
    if part is Part.METADATA:
        changed = clocks.changed_by(month)
        return now if changed is None else month_end(changed.through) - datetime.resolution
    change = clocks.changes(facts.recording)
    return now if change is None else change.through


def stopped_parts(
    facts: Facts, tripped: Iterable[Tripped], *, now: datetime, last_sweep_at: datetime | None
) -> frozenset[Part]:
    """Return the parts that a sweep at `now` leaves because of what `tripped`; an erasure is never stopped."""
    found: frozenset[Part] = frozenset()
    for each in tripped:
        if each.tenant is None:
            found = frozenset(PARTS)
        elif each.tenant == facts.recording.tenant:
            found |= early_parts(facts, now=now, last_sweep_at=last_sweep_at)
    return found


def _early(facts: Facts, part: Part, *, now: datetime, last_sweep_at: datetime | None) -> bool:
    own = falls_due(facts.recording, part, facts.clocks)
    captured = falls_due(facts.recording, part, facts.clocks.as_captured)
    if own is None or own > now or captured is None or captured > now:
        return True
    known = part is Part.METADATA and last_sweep_at is not None and own <= last_sweep_at
    return known and last_sweep_at is not None and not _kept_at(facts, last_sweep_at)


def _kept_at(facts: Facts, at: datetime) -> bool:
    """Tell whether a hold or the call itself kept the recording at an earlier sweep."""
    ended = facts.recording.ended_at
    return (
        ended is None
        or ended > at
        or any(
            hold.state is HoldState.RELEASED and hold.grace_until is not None and hold.grace_until > at
            for hold in facts.holds
        )
    )


def check_share(
    tenant: TenantId, *, early: int, by_decision: Collection[tuple[int, int]], limits: Limits
) -> Tripped | None:
    """Return what forbids to sweep this tenant, of which `early` recordings in all would go before their date.

    `by_decision` has for each decision how many go early by it, and of how many live ones. One that takes too great a
    share is enough. Counts from the first recording: for a tenant with one it is all of them.
    """
    over = [(many, live) for many, live in by_decision if many > limits.max_share * live]
    if not over:
        return None
    many, live = max(over, key=lambda each: (each[0] / max(each[1], 1), each))
    beside = "" if many == early else f"; {early} would in all"
    return Tripped(
        guard=Guard.MASS_SHRED,
        reason=(
            f"{many} of {live} live recordings that were there when it was decided would go before the date that was "
            f"fixed when they were recorded, and the limit is {limits.max_share:.0%}{beside}"
        ),
        tenant=tenant,
        early=early,
        live=max(live for _, live in by_decision),
    )


def lifts(
    stopped: Tripped, *, tenant: TenantId | None, early: int, through: datetime, used: bool, now: datetime
) -> bool:
    """Tell whether an approved permission lifts a guard at `now`: one for `tenant` (None: the clock) until `through`.

    It serves once, and for no more recordings than the `early` that two people saw.
    """
    return not used and now <= through and stopped.tenant == tenant and stopped.early <= early


def effective_now(now: datetime, last_sweep_at: datetime | None) -> datetime:
    """Return the later of the two: the instant a sweep counts as having happened at.

    A clock stepped back then neither moves the floor of what is swept backwards nor lets the next correct reading
    look like a jump.
    """
    return now if last_sweep_at is None else max(now, last_sweep_at)
