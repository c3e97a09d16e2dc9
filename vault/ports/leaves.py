"""Leaf counters: which coordinates of the keyring have been given out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from vault.model import AuditEvent, Cohort


class LeafRows(Protocol):
    """Leaves of cohorts, each given out once."""

    async def reserve_leaves(self, cohort: Cohort, count: int) -> int:
        """Take `count` consecutive leaves that were never and will never be given out again; return the first.

        GenerationPassed if the cohort's generation is closed.
        """

    async def close_generations(
        self, below: int, *, since: int, audit: Sequence[AuditEvent] = ()
    ) -> Mapping[Cohort, int]:
        """From now on reserve no leaf and let no recording begin in a generation below `below`; it never reopens.

        Returns how many leaves were ever reserved of each cohort of the generations `since` to `below - 1`.
        """
