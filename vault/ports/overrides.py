"""Overrides: two people allow one sweep in spite of a tripped guard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.ids import TenantId
from vault.model import AuditEvent
from vault.ports.revision import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOverride:
    """Permission of two people for one sweep, up to `through`, in spite of a tripped guard.

    It is for the early deletions of `tenant`, or for the clock guard (None). `stopped` states what had tripped when it
    was requested. It covers at most `early` recordings.
    """

    id: str
    tenant: TenantId | None = None
    stopped: str = ""
    early: int = 0
    through: datetime
    reason: str
    requested_by: str
    requested_at: datetime
    approved_by: str | None = None
    rejected_by: str | None = None
    used_at: datetime | None = None

    def is_open(self, *, now: datetime) -> bool:
        """Tell whether it may still be used, once it is approved."""
        return self.rejected_by is None and self.used_at is None and now <= self.through


class OverrideRows(Protocol):
    """The catalog rows of overrides."""

    async def add_override(self, override: SweepOverride, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert an override; Conflict if it exists, or if another for its tenant (or the clock) is open."""

    async def revise_override(self, override: str, revision: Revision[SweepOverride]) -> SweepOverride:
        """Replace the override with the one that `revision` returns, and return it; NotFound if there is none."""

    async def overrides(self) -> Sequence[SweepOverride]:
        """Return all overrides, newest first."""
