"""Holds, and the recordings that they protect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from vault.ids import HoldId, RecordingId, TenantId
from vault.model import AuditEvent, Hold, HoldState, HoldTerms
from vault.ports.revision import Revision

MOST_HOLDS: Final = 32
"""How many holds may protect one recording, not counting those that flags place. A hold is a pin for each part."""


class HoldLookup(Protocol):
    """Reads holds."""

    async def hold(self, hold: HoldId, *, tenant: TenantId | None = None) -> Hold:
        """Return a hold; NotFound, also if `tenant` is given and it belongs to another."""

    async def holds(
        self, *, tenant: TenantId | None = None, states: Sequence[HoldState] = (), limit: int = 1000
    ) -> Sequence[Hold]:
        """Return up to `limit` holds, newest first; empty `states` means all states."""

    async def hold_terms(self, *, states: Sequence[HoldState]) -> Sequence[HoldTerms]:
        """Return the terms of every hold in one of these states, newest first."""

    async def terms_of(self, holds: Sequence[HoldId]) -> Mapping[HoldId, HoldTerms]:
        """Return the terms of those of these holds that there are, however many."""

    async def holds_on(self, recording: RecordingId) -> Sequence[HoldTerms]:
        """Return the terms of the holds of any state that cover the recording; it is not in their `too_late`."""


class HoldRows(HoldLookup, Protocol):
    """Reads and changes holds."""

    async def add_hold(self, hold: Hold, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert a hold; NotFound if it names an unknown recording.

        Conflict if it exists, if a hold of the same kind and matter is `placing` or active on all of its recordings
        (`hold` in facts), or if one of them has MOST_HOLDS that are not released.
        """

    async def revise_hold(self, hold: HoldId, revision: Revision[Hold]) -> Hold:
        """Replace the hold with the one that `revision` returns, and return it; NotFound if there is none."""
