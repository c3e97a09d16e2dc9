"""When the next segment of a recording is cut: later and later, as long as the journal has room.

A segment is what a lost journal disk costs at most, and it costs an object, a row and a line of its certificate for as
long as the recording is kept. So the first segment is small and those of a long call grow.
"""

from __future__ import annotations

from typing import Final

UNHURRIED: Final = 0.25
"""Up to this fill of the journal, segments grow to their longest age."""
HURRIED: Final = 0.5
"""From this fill on no segment grows. New calls are refused at four fifths, which growth therefore never causes."""
_SPREAD_SEGMENTS: Final = 3


def seconds_to_cut(*, first: float, longest: float, stored: int, filled: float, share: float) -> float:
    """Return the age, in seconds, at which the oldest byte that is not stored has its segment cut.

    `first` is the age of a recording's first segment. Each further one of the `stored` doubles it, up to `longest`; the
    part of the journal that is `filled`, 0 to 1, takes the growth back, all of it from `HURRIED` on. A `longest` below
    `first` counts for every segment. `share`, above 0 and at most 1, shortens the first few, so that calls that
    began together are not cut together.
    """
    base = min(first, longest)
    grown = base
    for _ in range(stored):
        if grown >= longest:
            break
        grown = min(grown * 2, longest)
    room = min(max((HURRIED - filled) / (HURRIED - UNHURRIED), 0.0), 1.0)
    return (base + (grown - base) * room) * (share if stored < _SPREAD_SEGMENTS else 1.0)
