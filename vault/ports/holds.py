"""Holds and what they protect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from vault.ids import HoldId, RecordingId, TenantId
from vault.model import AuditEvent, Hold, HoldState
from vault.ports.revision import Revision

MOST_HOLDS: Final = 32
"""How many holds may stand on one recording, what flags place aside: each is a pin of every part in the keyring."""


class HoldLookup(Protocol):
    """Holds as they stand."""

    async def hold(self, hold: HoldId, *, tenant: TenantId | None = None) -> Hold:
        """Return the hold, with `tenant` only if it is that tenant's; NotFound."""

    async def holds(
        self, *, tenant: TenantId | None = None, states: Sequence[HoldState] = (), limit: int = 1000
    ) -> Sequence[Hold]:
        """Return holds, newest first; `states` empty means all."""

    async def holds_on(self, recording: RecordingId) -> Sequence[Hold]:
        """Return every hold that protects (not `too_late`) the recording, whatever its state."""


class HoldRows(HoldLookup, Protocol):
    """Holds, and how they change."""

    async def add_hold(self, hold: Hold, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; NotFound if it names an unknown recording.

        Conflict if it exists, if a hold of the same kind and matter is being placed or active on all of its recordings
        (`hold` in facts), or if one of them has MOST_HOLDS that are not released.
        """

    async def revise_hold(self, hold: HoldId, revision: Revision[Hold]) -> Hold:
        """Replace the hold as `revision` says and return it; NotFound."""
