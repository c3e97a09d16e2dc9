"""The catalog's schema, and what backup, restore and reconciliation need from a catalog."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from vault.format.backup import BackedRecording, PageTags, TableRows
from vault.ids import RecordingId
from vault.model import AuditEvent, Recording, RecordingState, SegmentRef


class SchemaCheck(Protocol):
    """Checks the version of the catalog's schema."""

    async def check_schema(self) -> None:
        """Raise ConfigError if the schema is absent, or older or newer than this program's.

        Unavailable if the file that was opened is no longer in its place.
        """


class Schema(SchemaCheck, Protocol):
    """Creates and migrates the schema, and closes connections."""

    async def migrate(self) -> None:
        """Migrate an empty or older schema to the current one. Opening a catalog does not do this by itself."""

    async def close(self) -> None:
        """Close connections; closing again is allowed."""


class CatalogSnapshot(Protocol):
    """The catalog as it was at one instant, independent of later writes.

    `tables` are all of them; one comes after those that it refers to.
    """

    schema_revision: str
    tables: Sequence[str]

    async def tags(self, table: str | None = None, *, start: str = "", end: str | None = None) -> PageTags | None:
        """Return the tags of all pages, or of one table's pages from `start` to before `end`.

        None if this schema does not keep them: everything may have changed. Only tables of `paged` have any.
        """

    @property
    def paged(self) -> Collection[str]:
        """The tables that grow with the vault, and are divided into pages."""

    def rows(self, table: str, *, start: str = "", end: str | None = None) -> AsyncGenerator[tuple[str, TableRows]]:
        """Yield the rows of the pages from `start` to before `end`, some hundred of one page at a time, in order."""


class BackupRows(Protocol):
    """Reads the catalog for a backup."""

    def snapshot(self) -> AbstractAsyncContextManager[CatalogSnapshot]:
        """Hold one snapshot open; writers do not wait for it, but their log grows until it is closed."""

    def objects(self) -> AsyncIterator[BackedRecording]:
        """Yield the recordings that have objects and are not shredded, those of one tenant after each other.

        It is no snapshot: what changes meanwhile may be seen or not.
        """

    async def recording_states(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, RecordingState]:
        """Return the states of up to 1,000 recordings; those without a row are left out."""


class RescueRows(Protocol):
    """Reconciles catalog rows with the keyring and the object store."""

    async def recording_states(self, recordings: Sequence[RecordingId]) -> Mapping[RecordingId, RecordingState]:
        """Return the states of up to 1,000 recordings; those without a row are left out."""

    async def rebuild_recording(
        self, recording: Recording, objects: Sequence[SegmentRef], *, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Insert a row and its objects, also below the sweep floor; an existing row is not changed.

        Conflict if another recording has the call token.
        """

    async def update_media(self, recording: Recording) -> None:
        """Replace the media descriptor of an open row."""

    async def shred_uncertified(
        self, recordings: Sequence[RecordingId], *, reason: str, audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Set rows to `shredded` without a certificate; rows in that state are not changed."""

    async def forget_metadata(self, recordings: Sequence[RecordingId], *, audit: Sequence[AuditEvent] = ()) -> None:
        """Remove sealed facts and tokens from rows, without a certificate; rows without them are not changed."""

    async def uncertified(self, *, after: RecordingId | None, limit: int) -> Sequence[Recording]:
        """Return up to `limit` shredded rows without a certificate, in order of id, after `after`."""


class BlankCatalog(Protocol):
    """A new catalog that is filled from a backup."""

    async def is_blank(self) -> bool:
        """Tell whether there is no catalog, or only the remains of an interrupted `load`."""

    async def load(
        self, schema_revision: str, sections: AsyncIterator[TableRows], *, settings: Mapping[str, str]
    ) -> None:
        """Fill a blank catalog with a dump, replace `settings`, and migrate the schema to this program's.

        It is one transaction, so a crash leaves the catalog blank. ConfigError for a schema newer than this program's,
        Conflict if the catalog is not blank, IntegrityError for rows that contradict the schema.
        """
