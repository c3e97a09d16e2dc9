"""The catalog row of a recording, from its creation to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from vault.ids import NodeId, RecordingId
from vault.model import AuditEvent, Examined, Recording, RecordingState, SegmentRef


class OpenRecordingRows(Protocol):
    """Creates, extends and finishes recordings."""

    async def create_recording(
        self,
        recording: Recording,
        *,
        elsewhere: Sequence[str] = (),
        begun_before: bool = False,
        notes: Mapping[int, bytes] = MappingProxyType({}),
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Insert a new row, and its notes as `put_notes` does.

        `elsewhere` are the tokens of the same call key in the tenant's other metadata cohorts.

        - Conflict if the tenant already has its call token or one of `elsewhere`.
        - TooLate if the period of `recording.audio` is at or below the sweep floor: a sweep is about to shred that
          cohort.
        - GenerationPassed if a coordinate's generation is closed, unless the recording was `begun_before` in a journal.
        """

    async def open_recordings(self, *, node: NodeId | None = None) -> Sequence[Recording]:
        """Return all open rows, or those whose journal is `node`'s."""

    async def add_segments(
        self, segments: Sequence[SegmentRef], *, stored_bytes: int | None = None, examined: Examined | None = None
    ) -> None:
        """Add verified objects to their recording and, if given, set its stored byte count and its media.

        It may be repeated.
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
        examined: Examined | None = None,
        lasted: timedelta | None = None,
        audit: Sequence[AuditEvent] = (),
    ) -> None:
        """Set an open row to `sealed` or `truncated`, and add `objects`: the manifest and segments not yet added.

        `examined` is the media that the first bytes show, if their segment is among them. The notes are removed in the
        same transaction, because the manifest has them. With the reason `EMPTY` the call key becomes free again: the
        row's call token becomes its id. It may be repeated: a row that is not open is not changed, and the audit events
        are not written again.
        """
