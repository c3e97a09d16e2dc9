"""Sets of leaves as sorted runs. The cost of an operation depends on the number of runs, not on that of leaves."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable

Span = tuple[int, int]
"""First and last leaf, both included."""

Spans = tuple[Span, ...]
"""Sorted runs that neither overlap nor adjoin, so each set of leaves has exactly one such form."""


def union(spans: Iterable[Span]) -> Spans:
    """Return all leaves of `spans`, which may overlap and come in any order."""
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def points(leaves: Iterable[int]) -> Spans:
    """Return single leaves as spans."""
    return union((leaf, leaf) for leaf in leaves)


def intersect(left: Spans, right: Spans) -> Spans:
    """Return the leaves that are in both."""
    found: list[Span] = []
    i = j = 0
    while i < len(left) and j < len(right):
        first, last = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if first <= last:
            found.append((first, last))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def subtract(left: Spans, right: Spans) -> Spans:
    """Return the leaves of `left` that are not in `right`."""
    found: list[Span] = []
    j = 0
    for first, last in left:
        start = first
        while j < len(right) and right[j][1] < start:
            j += 1
        k = j
        while k < len(right) and right[k][0] <= last:
            if start < right[k][0]:
                found.append((start, right[k][0] - 1))
            start = right[k][1] + 1
            k += 1
        if start <= last:
            found.append((start, last))
    return tuple(found)


def overlap(spans: Spans, span: Span) -> bool:
    """Tell whether any leaf of `span` is in `spans`."""
    at = bisect_right(spans, span[1], key=lambda each: each[0]) - 1
    return at >= 0 and spans[at][1] >= span[0]


def contain(spans: Spans, span: Span) -> bool:
    """Tell whether every leaf of `span` is in `spans`."""
    at = bisect_right(spans, span[0], key=lambda each: each[0]) - 1
    return at >= 0 and spans[at][1] >= span[1]


class Runs:
    """A set of leaves of which there may be millions of runs: eight bytes each. It is immutable."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, spans: Spans) -> None:
        self._firsts = array("I", [first for first, _ in spans])
        self._lasts = array("I", [last for _, last in spans])

    @property
    def spans(self) -> Spans:
        """All its runs."""
        return tuple(zip(self._firsts, self._lasts, strict=True))

    def at(self, leaf: int) -> Span | None:
        """Return the run that has this leaf; None if none has."""
        place = bisect_right(self._firsts, leaf) - 1
        return (self._firsts[place], self._lasts[place]) if place >= 0 and self._lasts[place] >= leaf else None

    def __len__(self) -> int:
        return len(self._firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Runs) and (self._firsts, self._lasts) == (other._firsts, other._lasts)

    def __hash__(self) -> int:
        return hash((self._firsts.tobytes(), self._lasts.tobytes()))
