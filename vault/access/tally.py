"""Counts of repeated events, in memory bounded independently of their number."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from vault.instants import rfc3339

NAMED: Final = 5
"""How many different texts are kept in full."""
MOST_DIFFERENT: Final = 100
"""How many different texts are counted; this count means as many or more."""


class Different:
    """The first NAMED of many texts, and how many different ones there were, up to MOST_DIFFERENT."""

    def __init__(self) -> None:
        self.named: list[str] = []
        self._hashes: set[int] = set()

    @property
    def count(self) -> int:
        """How many different texts were added; MOST_DIFFERENT means as many or more."""
        return len(self._hashes)

    def add(self, text: str) -> None:
        """Add a text."""
        if hash(text) in self._hashes or self.count >= MOST_DIFFERENT:
            return
        self._hashes.add(hash(text))
        if len(self.named) < NAMED:
            self.named.append(text)

    def merge(self, other: Different) -> None:
        """Add the texts of `other`."""
        for text in other.named:
            self.add(text)
        self._hashes |= set([*(other._hashes - self._hashes)][: MOST_DIFFERENT - self.count])


class Tally:
    """How often an event happened, its first and last time, and the different values of each of `names`."""

    def __init__(self, *names: str) -> None:
        self.count = 0
        self._moments: tuple[datetime, datetime] | None = None
        self._seen = {name: Different() for name in names}

    def add(self, at: datetime, **seen: str | None) -> None:
        """Count one event; values of other names, and None, are ignored."""
        self.count += 1
        self._reach(at, at)
        for name, different in self._seen.items():
            if (text := seen.get(name)) is not None:
                different.add(text)

    def _reach(self, first: datetime, last: datetime) -> None:
        since, until = self._moments or (first, last)
        self._moments = min(since, first), max(until, last)

    def merge(self, other: Tally) -> None:
        """Add the counts of `other`, which has the same names."""
        self.count += other.count
        if other._moments is not None:
            self._reach(*other._moments)
        for name, different in self._seen.items():
            different.merge(other._seen[name])

    def document(self) -> Mapping[str, Any]:
        """Return the count, the first and last time, and for each name its first values and their number."""
        assert self._moments is not None, "something was counted"
        first, last = (rfc3339(each) for each in self._moments)
        found: dict[str, Any] = {"count": self.count, "first": first, "last": last}
        for name, different in self._seen.items():
            found |= {name: different.named, f"different_{name}": different.count}
        return found
