"""Sealed notes of open recordings, and facts that arrive during the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from vault.ids import RecordingId
from vault.model import AuditEvent


class NoteRows(Protocol):
    """Notes and changed facts of open recordings."""

    async def put_notes(
        self, recording: RecordingId, notes: Mapping[int, bytes], *, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Insert or replace notes by number; NotFound if there is no row, Conflict if it is not open."""

    async def notes(self, recording: RecordingId) -> Mapping[int, bytes]:
        """Return an open recording's sealed notes by number, in order; none for a recording that is not open."""

    async def revise_facts(
        self,
        recording: RecordingId,
        *,
        sealed_facts: bytes,
        caller_token: str | None,
        called_token: str | None,
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Replace an open row's sealed facts and number tokens; NotFound without a row, Conflict if it is not open."""
