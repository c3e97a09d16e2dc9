"""How long a call may be paused before the vault ends the pause: a decision about seconds, without a clock of its own.

Pauses add up, or two of them with a moment in between would be as good as one without an end. The time for which a call
was kept is given back, second for second, so short pauses over a long call never add up to a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vault.format.notes import Note, Pause

_SLACK: Final = 1.0
"""Seconds by which notes, in whole milliseconds of a clock that may be set, may tell less of a pause than there was."""


@dataclass(slots=True, kw_only=True)
class Allowance:
    """What one call has used of the paused time it may have, in seconds of a clock that only goes forward.

    A new one stands in its place once the vault has ended a pause: then the count begins anew.
    """

    used: float = 0.0
    since: float = 0.0
    """Up to when `used` counts."""
    paused: bool = False

    def used_at(self, now: float) -> float:
        """Return what is used at `now`."""
        passed = max(now - self.since, 0.0)
        return self.used + passed if self.paused else max(self.used - passed, 0.0)

    def turn(self, *, paused: bool, now: float) -> None:
        """The call is paused from `now` on, or kept from `now` on."""
        self.used, self.since, self.paused = self.used_at(now), now, paused

    def over(self, limit: float, now: float) -> bool:
        """Whether the vault has to end the present pause."""
        return self.paused and self.used_at(now) >= limit

    def left(self, limit: float, now: float) -> float | None:
        """Return after how many seconds from `now` it has to; None without a pause."""
        return max(limit - self.used_at(now), 0.0) if self.paused else None


def noted_use(notes: Sequence[Note], *, limit: float, now_ms: int) -> float:
    """Return how many seconds of `limit` the pauses have used at `now_ms`; the notes come in the order they were made.

    A pause that ended with the limit full was ended by the vault. Pauses without a byte between them have one note,
    with the time of the last: they count as if they had followed each other at once.
    """
    found = Allowance()
    for note in notes:
        if not isinstance(note, Pause):
            continue
        began, missing = note.at_ms / 1000, note.missing_ms / 1000
        # What a lasting pause has missed was before it began.
        first, last = (began - missing, began) if note.lasting else (began, began + missing)
        found.turn(paused=False, now=max(first, found.since))
        found.used += missing
        found.used = max(found.used - int((found.used + _SLACK) / limit) * limit, 0.0)
        found.since, found.paused = max(last, found.since), note.lasting
    return found.used_at(now_ms / 1000)
