"""What every service gets from its process: time, randomness and metrics."""

from __future__ import annotations

from dataclasses import dataclass

from vault.ports.time import Clock, Entropy
from vault.telemetry import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The clock, the randomness and the metrics of one process, passed in together so that tests control them."""

    clock: Clock
    entropy: Entropy
    metrics: Metrics
