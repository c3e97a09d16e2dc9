"""The time by which people's decisions count: the machine's, but never before the last sweep."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from vault.ports.time import Clock
from vault.retention.guards import effective_now


class VaultTime:
    """A clock that never goes back before the last sweep.

    Sweeps use no earlier time: a grace, a notice or an export window that began before it would be over at once.
    """

    def __init__(self, clock: Clock, last_sweep_at: Callable[[], datetime | None]) -> None:
        self._clock = clock
        self._last_sweep_at = last_sweep_at

    def now(self) -> datetime:
        """Return the later of the wall clock and the last sweep."""
        return effective_now(self._clock.now(), self._last_sweep_at())

    def monotonic(self) -> float:
        """Return seconds on a clock that never steps."""
        return self._clock.monotonic()
