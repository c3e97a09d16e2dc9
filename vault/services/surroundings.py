"""What every service gets from its process: the clock, randomness and metrics; and the clock for decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from vault.ports.time import Clock, Entropy
from vault.retention.guards import effective_now
from vault.telemetry import Metrics

# -- what every service gets --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The clock, the randomness and the metrics of one process, passed in together so that tests control them."""

    clock: Clock
    entropy: Entropy
    metrics: Metrics


# -- the clock for decisions --------------------------------------------------------------------------------------


class VaultTime:
    """A clock that never goes back before the last sweep.

    A sweep uses the later of the two times. A grace, a notice or an export window that began at an earlier time would
    seem to be over at once.
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
