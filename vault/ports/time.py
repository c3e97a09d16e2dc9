"""Time and randomness, injected."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time, injected."""

    def now(self) -> datetime:
        """Return the wall clock in UTC, timezone-aware."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never steps and counts suspend (CLOCK_BOOTTIME)."""


Entropy = Callable[[int], bytes]
"""Returns that many cryptographically random bytes; `os.urandom` in production."""
