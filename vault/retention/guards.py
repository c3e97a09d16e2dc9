"""The guards that stop a sweep: a clock that jumped ahead, or too many early deletions for one tenant.

A clock that jumped ahead makes recordings of every tenant due, so it stops the whole sweep. The keyring records the
last sweep, and `now` may be only so far ahead of it. Recordings that go on the date fixed at capture are not limited,
however many fall on one day. Recordings that go earlier, because a contract ended or a policy became shorter, are
counted for each tenant; too many stop the sweep of that tenant only. It takes two people to override a guard.
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
    """What a guard stops: the whole sweep, or the early deletions of `tenant`.

    `early` of the tenant's `live` recordings would go before their date. `reason` may be shown to the operator and
    written to the audit trail.
    """

    guard: Guard
    reason: str
    tenant: TenantId | None = None
    early: int = 0
    live: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far a sweep may reach.

    `max_jump` bounds the time since the last sweep. `max_share` (0 to 1) bounds the share of a tenant's live recordings
    that one decision may delete before the date fixed at capture, counted among the recordings that existed when it was
    decided. 1 switches that guard off.
    """

    max_jump: timedelta
    max_share: float


def check_clock(*, now: datetime, last_sweep_at: datetime | None, limits: Limits) -> Tripped | None:
    """Return why a sweep at `now` is forbidden; None if it is allowed.

    The first sweep of a vault (`last_sweep_at` None) is allowed. A `now` before the last sweep is harmless: see
    `effective_now`.
    """
    if last_sweep_at is None or now - last_sweep_at <= limits.max_jump:
        return None
    ahead, bound = format_duration(now - last_sweep_at), format_duration(limits.max_jump)
    return Tripped(
        guard=Guard.CLOCK_JUMP,
        reason=f"the clock is {ahead} ahead of the last sweep and the limit is {bound}",
    )


def early_parts(facts: Facts, *, now: datetime, last_sweep_at: datetime | None) -> frozenset[Part]:
    """Return the parts that a sweep at `now` deletes before the date fixed at capture.

    Audio has that date in its coordinate. Metadata has it in the retention agreed for its month. Metadata that was due
    at the last sweep by the present policy, and was not deleted then, is due because the policy became shorter. An
    erasure is not counted, because two people saw each recording in it.
    """
    return frozenset(_early_grounds(facts, now=now, last_sweep_at=last_sweep_at))


def early_by(facts: Facts, *, now: datetime, last_sweep_at: datetime | None) -> frozenset[datetime]:
    """Return the decisions that cause `early_parts`, each by the instant up to which recordings count for its share.

    Recordings captured after that instant are not counted: somebody who goes on recording could otherwise make the
    share as small as they like.
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
    """Return up to which capture time recordings count for a decision; `now` for a policy that names no instant."""
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
    """Return the parts that the guards in `tripped` keep from a sweep at `now`; no guard stops an erasure."""
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
    """Tell whether a hold or the running call kept the recording from the sweep at `at`."""
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
    """Return why the early deletions of this tenant are forbidden; None if they are allowed.

    `early` recordings would go before their date in all. `by_decision` has for each decision how many of them it
    causes, and how many live recordings it is measured against. One decision with too large a share is enough. There is
    no least number: the only recording of a tenant is 100 %.
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


def override_lifts(
    stopped: Tripped, *, tenant: TenantId | None, early: int, through: datetime, used: bool, now: datetime
) -> bool:
    """Tell whether an approved override lifts a guard at `now`.

    It is for `tenant` (None: the clock guard), until `through`, once, and for at most the `early` recordings that two
    people saw.
    """
    return not used and now <= through and stopped.tenant == tenant and stopped.early <= early


def effective_now(now: datetime, last_sweep_at: datetime | None) -> datetime:
    """Return the time that is recorded for a sweep: the later of the two.

    So a clock that was set back does not move the recorded time back, and the next correct reading does not look like a
    jump.
    """
    return now if last_sweep_at is None else max(now, last_sweep_at)
