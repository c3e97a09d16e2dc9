"""Max-min shares of one resource: who may have more of it while others wait.

Holders, such as tenants, share a capacity. One that nobody waits beside may have all of it. While others wait, each
may have as much as all could have alike, where what one does not want is the others' (the water level of max-min
fairness). Nothing is taken from anybody here: who has more than that gets no more, so that what is given back goes to
those who have less.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum


class Ruling(StrEnum):
    """What a holder that wants more is told."""

    ADMITTED = "admitted"
    FULL = "full"
    """There is no room."""
    SHARE = "share"
    """The holder has its share, and others wait."""


def level(capacity: int, uses: Mapping[str, int], waiting: Collection[str]) -> int:
    """Return the share of each holder in `waiting`, which want all they can have; the others want what they use."""
    left, holders = capacity, len({*uses, *waiting})
    for use in sorted(use for holder, use in uses.items() if holder not in waiting):
        if use * holders > left:
            break
        left -= use
        holders -= 1
    return left // max(holders, 1)


def rule(capacity: int, uses: Mapping[str, int], waiting: Sequence[str], holder: str, wanted: int) -> Ruling:
    """Decide whether `holder` may have `wanted` more.

    `waiting` are those who were refused and may come back, who has waited longest first. Beyond its share a holder may
    have what is left over, unless one of the others that wait has less than it, or has as much and has waited longer.
    """
    room = sum(uses.values()) + wanted <= capacity
    others = [each for each in waiting if each != holder]
    if others and uses.get(holder, 0) + wanted > level(capacity, uses, {*others, holder}):
        before = set(waiting[: waiting.index(holder)] if holder in waiting else waiting)
        if any(uses.get(each, 0) < uses.get(holder, 0) + (each in before) for each in others):
            return Ruling.SHARE
    return Ruling.ADMITTED if room else Ruling.FULL


def above(
    capacity: int, uses: Mapping[str, int], waiting: Collection[str], holder: str, *, wanted: int = 1
) -> Sequence[str]:
    """Return who has more than its share, the most first, where the share of `holder` covers the `wanted` more."""
    share = level(capacity, uses, {*waiting, holder})
    if uses.get(holder, 0) + wanted > share:
        return ()
    return sorted((each for each, use in uses.items() if use > share), key=lambda each: -uses[each])
