"""Max-min fair shares of one resource among holders, such as tenants.

A holder may use the whole capacity while no other waits. While others wait, each may use an equal share; what one
holder does not need is divided among the others (the water level of max-min fairness). This module takes nothing away:
a holder above its share gets no more, so that released capacity goes to those with less.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum


class Ruling(StrEnum):
    """The decision about a request for more."""

    ADMITTED = "admitted"
    FULL = "full"
    """The capacity is used up."""
    SHARE = "share"
    """The holder already has its share, and others wait."""


def fair_share(capacity: int, uses: Mapping[str, int], waiting: Collection[str]) -> int:
    """Return the share of each holder in `waiting`, if those want all they can get and the others what they use."""
    left, holders = capacity, len({*uses, *waiting})
    for use in sorted(use for holder, use in uses.items() if holder not in waiting):
        if use * holders > left:
            break
        left -= use
        holders -= 1
    return left // max(holders, 1)


def decide_share(capacity: int, uses: Mapping[str, int], waiting: Sequence[str], holder: str, wanted: int) -> Ruling:
    """Decide whether `holder` may have `wanted` more.

    `waiting` are the holders that were refused and may come back, the longest waiting first. A holder may take free
    capacity beyond its share, unless another waiting holder has less, or has as much and has waited longer.
    """
    room = sum(uses.values()) + wanted <= capacity
    others = [each for each in waiting if each != holder]
    if others and uses.get(holder, 0) + wanted > fair_share(capacity, uses, {*others, holder}):
        before = set(waiting[: waiting.index(holder)] if holder in waiting else waiting)
        if any(uses.get(each, 0) < uses.get(holder, 0) + (each in before) for each in others):
            return Ruling.SHARE
    return Ruling.ADMITTED if room else Ruling.FULL


def holders_above_share(
    capacity: int, uses: Mapping[str, int], waiting: Collection[str], holder: str, *, wanted: int = 1
) -> Sequence[str]:
    """Return the holders above their share, the largest first; none if `wanted` would put `holder` above its own."""
    share = fair_share(capacity, uses, {*waiting, holder})
    if uses.get(holder, 0) + wanted > share:
        return ()
    return sorted((each for each, use in uses.items() if use > share), key=lambda each: -uses[each])
