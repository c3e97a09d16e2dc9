"""Time and randomness, which are passed in so that tests control them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Return the wall clock in UTC, timezone-aware."""

    def monotonic(self) -> float:
        """Return seconds on a clock that is not adjusted and runs during suspend (CLOCK_BOOTTIME)."""


Entropy = Callable[[int], bytes]
"""Returns the given number of cryptographically random bytes; `os.urandom` in production."""
