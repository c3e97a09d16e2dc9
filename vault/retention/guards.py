"""What stops a sweep: a clock that jumped ahead, or a sweep that would take too much of what is alive.

A clock jump is a mass shred, so it is the last sweep, recorded in the keyring, that says how far `now` may be ahead;
going past a guard takes two people.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from vault.retention.durations import format_duration


class Guard(enum.StrEnum):
    """Which guard stopped the sweep."""

    CLOCK_JUMP = "clock_jump"
    MASS_SHRED = "mass_shred"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tripped:
    """The sweep must not run; `reason` is fit for the operator and the audit trail."""

    guard: Guard
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far a sweep may reach.

    `max_jump` bounds the distance from the last sweep. A sweep that takes more than `max_share_minimum` recordings may
    not take more than `max_share` (0 to 1) of the live ones.
    """

    max_jump: timedelta
    max_share: float
    max_share_minimum: int


def check_sweep(
    *,
    now: datetime,
    last_sweep_at: datetime | None,
    due_count: int,
    live_count: int,
    limits: Limits,
    override_through: datetime | None = None,
) -> Tripped | None:
    """Return what forbids a sweep at `now`, or None.

    `live_count` counts every recording that still has a key, the due ones included. `override_through` is the end of an
    unused permission by two people: a sweep at or before it passes both guards. The first sweep of a vault
    (`last_sweep_at` None) has no distance to measure; a `now` before the last sweep is harmless, see `effective_now`.
    """
    if override_through is not None and now <= override_through:
        return None
    if last_sweep_at is not None and now - last_sweep_at > limits.max_jump:
        ahead = format_duration(now - last_sweep_at)
        bound = format_duration(limits.max_jump)
        return Tripped(
            guard=Guard.CLOCK_JUMP,
            reason=f"the clock is {ahead} ahead of the last sweep and the limit is {bound}; nothing was deleted",
        )
    if due_count > limits.max_share_minimum and due_count > limits.max_share * live_count:
        return Tripped(
            guard=Guard.MASS_SHRED,
            reason=(
                f"{due_count} of {live_count} live recordings are due and the limit is "
                f"{limits.max_share:.0%} of them; nothing was deleted"
            ),
        )
    return None


def effective_now(now: datetime, last_sweep_at: datetime | None) -> datetime:
    """Return the later of the two: the instant a sweep counts as having happened at.

    A clock stepped back then neither moves the floor of what is swept backwards nor lets the next correct reading
    look like a jump.
    """
    return now if last_sweep_at is None else max(now, last_sweep_at)
