"""Requests to erase recordings before their date, and the rows that keep them."""

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
    """On what ground something is erased before its date."""

    ART17 = "art17"
    """The data subject's right, UK GDPR Art. 17."""
    CONTROLLER_INSTRUCTION = "controller_instruction"


class ErasureState(enum.StrEnum):
    """`requested → approved → done`, or `requested → rejected`; approved ones wait while holds keep what they name."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    DONE = "done"


class ErasureOutcome(enum.StrEnum):
    """What became of one recording of an erasure: `pending → erasing → erased`, or it stays, or was gone before."""

    PENDING = "pending"
    KEPT = "kept"
    """A hold protects it, or the call was still under way, and the request did not ask to wait."""
    ERASING = "erasing"
    """Its shred is decided: it is not read any more."""
    ERASED = "erased"
    GONE = "gone"
    """Something else took it: its date, the end of the contract, or an erasure of another case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """A request to erase recordings before their date; `queue` waits for holds to end instead of keeping.

    Names no person: a search by number is resolved into `recordings` when the request is made.
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
    """Erasures as they stand."""

    async def erasure(self, erasure: ErasureId, *, tenant: TenantId | None = None) -> Erasure:
        """Return one, with `tenant` only if it is that tenant's; NotFound."""

    async def erasures(
        self,
        *,
        tenant: TenantId | None = None,
        states: Sequence[ErasureState] = (),
        before: ErasureId | None = None,
        limit: int = 100,
    ) -> Sequence[Erasure]:
        """Return a page, newest first; `states` empty means all."""

    async def erasures_on(self, recording: RecordingId) -> Sequence[Erasure]:
        """Return every erasure that names the recording, newest first; `recordings` holds that one's outcome alone."""

    async def erasures_of(self, shred: str) -> Sequence[tuple[Erasure, Sequence[Recording]]]:
        """Return the erasures that were intended with a shred, each with the recordings it took for them."""


class ErasureRows(ErasureLookup, Protocol):
    """Erasures, and how they change; each method is one transaction."""

    async def add_erasure(self, erasure: Erasure, *, audit: Sequence[AuditEvent] = ()) -> None:
        """Insert; Conflict if it exists, or if another one of its case is open and would take one of its recordings.

        A case is a tenant's basis and reference. Of two insertions at once the second sees the first.
        """

    async def revise_erasure(self, erasure: ErasureId, revision: Revision[Erasure]) -> Erasure:
        """Replace the erasure's state, decision and outcomes as `revision` says and return it; NotFound."""
