"""Leaf counters: which coordinates of the keyring have been reserved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from vault.model import AuditEvent, Cohort


class LeafRows(Protocol):
    """Reserves leaves of cohorts, each once."""

    async def reserve_leaves(self, cohort: Cohort, count: int) -> int:
        """Reserve `count` consecutive leaves that no other call gets, and return the first.

        GenerationPassed if the cohort's generation is closed.
        """

    async def close_generations(
        self, below: int, *, since: int, audit: Sequence[AuditEvent] = ()
    ) -> Mapping[Cohort, int]:
        """Close the generations below `below` for good: no leaf of them is reserved, and no recording begins in them.

        Returns how many leaves of each cohort of the generations `since` to `below - 1` were reserved.
        """
