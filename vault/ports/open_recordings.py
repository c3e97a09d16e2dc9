"""The life of a recording in the catalog, from its row to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from vault.ids import NodeId, RecordingId
from vault.model import AuditEvent, Heard, Recording, RecordingState, SegmentRef


class OpenRecordingRows(Protocol):
    """Recordings that are being made."""

    async def create_recording(
        self,
        recording: Recording,
        *,
        elsewhere: Sequence[str] = (),
        begun_before: bool = False,
        notes: Mapping[int, bytes] = MappingProxyType({}),
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Insert a new row, and with it what `put_notes` takes.

        `elsewhere` are the tokens of the same call key in the tenant's other metadata cohorts.

        Conflict if the tenant already has its call token or one of `elsewhere`; TooLate if `recording.audio` lies in a
        period at or below the sweep floor, so that no recording can be born into a cohort a sweep is about to take;
        GenerationPassed if a coordinate's generation is closed, unless the recording was `begun_before` in a journal.
        """

    async def open_recordings(self, *, node: NodeId | None = None) -> Sequence[Recording]:
        """Return every row in state open, or those whose journal is `node`'s."""

    async def add_segments(
        self, segments: Sequence[SegmentRef], *, stored_bytes: int | None = None, heard: Heard | None = None
    ) -> None:
        """Record verified objects and, if given, set the recording's stored byte count, and what its head tells.

        Repeating is harmless.
        """

    async def finish_recording(
        self,
        recording: RecordingId,
        *,
        state: RecordingState,
        reason: str | None,
        ended_at: datetime,
        stored_bytes: int,
        objects: Sequence[SegmentRef],
        heard: Heard | None = None,
        lasted: timedelta | None = None,
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Move open → sealed | truncated and record `objects`: the manifest and any segments not yet recorded.

        `heard` is what the head tells, if its segment is among them.

        The notes go with the same transaction: the manifest has them. Truncated with the reason `EMPTY` frees the call
        key: the row's call token becomes its id, and another recording may have the token it had.

        Repeating is harmless: a row that has left `open` stays as it is and the audit events are not written again.
        """
