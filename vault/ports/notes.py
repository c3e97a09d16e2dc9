"""What happened to open recordings beside their audio, sealed; and facts that came late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from vault.ids import RecordingId
from vault.model import AuditEvent


class NoteRows(Protocol):
    """Notes and late facts of open recordings."""

    async def put_notes(
        self, recording: RecordingId, notes: Mapping[int, bytes], *, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Insert or replace notes by number; NotFound, or Conflict if the row is no longer open."""

    async def notes(self, recording: RecordingId) -> Mapping[int, bytes]:
        """Return an open recording's sealed notes by number, in order; none for any other."""

    async def revise_facts(
        self,
        recording: RecordingId,
        *,
        sealed_facts: bytes,
        caller_token: str | None,
        called_token: str | None,
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Replace an open row's sealed facts and the tokens of its numbers; NotFound, Conflict if it is not open."""
