"""Requests to erase recordings before their date, and the catalog rows that store them."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from vault.ids import RecordingId, TenantId
from vault.model import AuditEvent, Recording
from vault.ports.revision import Revision

ErasureId = NewType("ErasureId", str)


class ErasureBasis(enum.StrEnum):
    """The legal ground of an erasure before the date."""

    ART17 = "art17"
    """The data subject's right, UK GDPR Art. 17."""
    CONTROLLER_INSTRUCTION = "controller_instruction"


class ErasureState(enum.StrEnum):
    """`requested → approved → done`, or `requested → rejected`. An approved one waits while its recordings are held."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    DONE = "done"


class ErasureOutcome(enum.StrEnum):
    """The outcome for one recording of an erasure: `pending → erasing → erased`, or `kept`, or `gone`."""

    PENDING = "pending"
    KEPT = "kept"
    """A hold protected it, or the call was still under way, and the request did not ask to wait."""
    ERASING = "erasing"
    """Its shred is decided; it can no longer be played."""
    ERASED = "erased"
    GONE = "gone"
    """It was deleted for another reason: its date, the end of the contract, or the erasure of another case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """A request to erase recordings before their date. With `queue` it waits until holds on them end.

    It names no person: a search by number is resolved into `recordings` when the request is made.
    """

    id: ErasureId
    tenant: TenantId
    basis: ErasureBasis
    case_reference: str
    queue: bool
    state: ErasureState
    requested_by: str
    requested_at: datetime
    recordings: Mapping[RecordingId, ErasureOutcome]
    decided_by: str | None = None
    decided_at: datetime | None = None


class ErasureLookup(Protocol):
    """Reads erasure requests."""

    async def erasure(self, erasure: ErasureId, *, tenant: TenantId | None = None) -> Erasure:
        """Return a request; NotFound, also if `tenant` is given and it belongs to another."""

    async def erasures(
        self,
        *,
        tenant: TenantId | None = None,
        states: Sequence[ErasureState] = (),
        before: ErasureId | None = None,
        limit: int = 100,
    ) -> Sequence[Erasure]:
        """Return up to `limit` requests older than `before`, newest first; empty `states` means all states."""

    async def erasures_on(self, recording: RecordingId) -> Sequence[Erasure]:
        """Return the requests that name the recording, newest first; their `recordings` holds only that one."""

    async def erasures_of(self, shred: str) -> Sequence[tuple[Erasure, Sequence[Recording]]]:
        """Return the requests that a shred carries out, each with its recordings that the shred deletes."""


class ErasureRows(ErasureLookup, Protocol):
    """Reads and changes erasure requests; each method is one transaction."""

    async def add_erasure(self, erasure: Erasure, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert a request.

        Conflict if it exists, or if an open request of the same case names one of its recordings. A case is a tenant's
        basis and reference. Of two insertions at once, the second sees the first.
        """

    async def revise_erasure(self, erasure: ErasureId, revision: Revision[Erasure]) -> Erasure:
        """Replace the request's state, decision and outcomes with those that `revision` returns, and return it.

        NotFound if there is none.
        """
