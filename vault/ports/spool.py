"""The spool: sealed parts of uploads on this node's disk, until they are put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vault.ids import RecordingId


class Room(Protocol):
    """Counts the bytes of each tenant in the spool."""

    def take(self, holder: str, size: int) -> None:
        """Count `size` more bytes; Unavailable, and nothing is counted, if there is no room for them now."""

    def give(self, holder: str, size: int) -> None:
        """Count `size` bytes less."""


class SpoolFile(Protocol):
    """A file that is being written or read. Unless it is kept, `close` or the end of the process removes it."""

    size: int
    """The number of its bytes."""

    async def append(self, data: bytes) -> None:
        """Add bytes at the end. Unavailable if the tenant may have no more in the spool, DiskFull on a full disk."""

    async def read(self, start: int, end: int) -> bytes:
        """Return bytes `[start, end)`; Truncated if there are fewer."""

    async def keep(self, version: int = 0) -> None:
        """Keep it as that version of its part, durable when this returns; other versions stay."""

    async def close(self) -> None:
        """Close it and, unless it was kept, free its space. Closing again is allowed."""


class Spool(Protocol):
    """Parts of uploads by recording, number and version. It holds only ciphertext, and counts it for the tenant."""

    async def prepare(self, recording: RecordingId) -> None:
        """Create a durable folder for a recording's parts."""

    async def begin(self, recording: RecordingId, number: int, *, tenant: str) -> SpoolFile:
        """Return a new file for a part."""

    async def scratch(self, *, tenant: str) -> SpoolFile:
        """Return a new file without a name, which cannot be kept; a crash leaves nothing of it."""

    async def open(self, recording: RecordingId, number: int, version: int = 0) -> SpoolFile:
        """Open a kept version of a part for reading; NotFound if there is none."""

    async def kept(self) -> Mapping[RecordingId, Mapping[tuple[int, int], int]]:
        """Return the kept files of all recordings: sizes by part number and version. Other files are removed.

        The sizes are not counted for their tenants.
        """

    async def drop(self, recording: RecordingId, *, tenant: str) -> None:
        """Remove a recording's folder with all its parts and stop counting them; an absent one is ignored."""
