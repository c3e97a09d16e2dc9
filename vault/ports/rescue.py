"""What backup, restore and reconciliation ask of a catalog beyond its daily work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from vault.format.backup import BackedRecording, TableRows
from vault.ids import RecordingId
from vault.model import AuditEvent, Recording, RecordingState, SegmentRef


class CatalogSnapshot(Protocol):
    """The catalog as it was at one instant, whatever is written meanwhile."""

    schema_revision: str

    def tables(self) -> AsyncIterator[TableRows]:
        """Yield every row of every table, a table after the ones it refers to, some thousand rows at a time."""

    def objects(self) -> AsyncIterator[BackedRecording]:
        """Yield the recordings that are not shredded and have objects, in order of tenant and id."""


class BackupRows(Protocol):
    """The catalog, to copy."""

    def snapshot(self) -> AbstractAsyncContextManager[CatalogSnapshot]:
        """Hold one snapshot open; nobody who writes waits for it."""

    async def recording_states(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, RecordingState]:
        """Return the state of each of up to 1,000 recordings that has a row."""


class RescueRows(Protocol):
    """Rows that are brought up to what keyring and objects say."""

    async def recording_states(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, RecordingState]:
        """Return the state of each of up to 1,000 recordings that has a row."""

    async def rebuild_recording(
        self, recording: Recording, objects: Sequence[SegmentRef], *, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Insert a row and its objects as they are, also below the sweep floor; a row that exists stays as it is.

        Conflict if another recording has the call token.
        """

    async def update_media(self, recording: Recording) -> None:
        """Replace the media descriptor of an open row."""

    async def shred_uncertified(
        self, recordings: Sequence[RecordingId], *, reason: str, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Move rows to shredded without a certificate; rows that are shredded stay as they are."""

    async def forget_metadata(self, recordings: Sequence[RecordingId], *, audit: Sequence[AuditEvent] = ()) -> None:
        """Take sealed facts and tokens out of rows, without a certificate; rows that have none stay as they are."""

    async def uncertified(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return shredded rows without a certificate, in id order."""


class BlankCatalog(Protocol):
    """A catalog to fill from a copy."""

    async def is_blank(self) -> bool:
        """Tell whether there is no catalog yet, or only what an interrupted `load` left."""

    async def load(
        self, schema_revision: str, sections: AsyncIterator[TableRows], *, settings: Mapping[str, str]
    ) -> None:
        """Fill a blank catalog with a dump of that schema, replace `settings`, and bring the schema to this code's.

        One transaction: a crash leaves it blank. ConfigError for a schema newer than this code's, Conflict if the
        catalog is not blank, IntegrityError for rows that contradict the schema.
        """
