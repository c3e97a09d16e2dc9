"""Two-person permission for one sweep past a guard."""

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
    """Two-person permission for one sweep past a tripped guard, up to `through`.

    For what goes early of `tenant`, or for the clock (None). `stopped` says what had tripped when it was asked for;
    the permission covers no more than `early` recordings.
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
        """Tell whether it may still serve, once it is approved."""
        return self.rejected_by is None and self.used_at is None and now <= self.through


class OverrideRows(Protocol):
    """Permissions past a guard."""

    async def add_override(self, override: SweepOverride, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or if another one of its tenant (or of the clock) is open."""

    async def revise_override(self, override: str, revision: Revision[SweepOverride]) -> SweepOverride:
        """Replace the override as `revision` says and return it; NotFound."""

    async def overrides(self) -> Sequence[SweepOverride]:
        """Return all, newest first."""
