"""How much one holder may have under way at once, whatever the others do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from vault.errors import Crowded

_RETRY_SECONDS = 5


class Slots:
    """At most `each` at once of one kind of work for one holder, such as a token."""

    def __init__(self, each: int, *, what: str) -> None:
        self._each = each
        self._what = what
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, holder: str) -> Iterator[None]:
        """Have one of the holder's slots inside the context; Crowded if all are taken."""
        if self._taken[holder] >= self._each:
            raise Crowded(
                f"as many {self._what} are under way for this token as it may have at once, which is {self._each}",
                hint="let one end, or come back",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self._taken[holder] += 1
        try:
            yield
        finally:
            self._taken[holder] -= 1
            if not self._taken[holder]:
                del self._taken[holder]
