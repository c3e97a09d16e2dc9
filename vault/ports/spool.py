"""The spool: sealed pieces of uploads on this node's disk, until they are put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vault.ids import RecordingId


class Room(Protocol):
    """Counts what each tenant has in the spool."""

    def take(self, holder: str, size: int) -> None:
        """Have so many bytes more; Unavailable, and nothing was counted, if there is no room for them now."""

    def give(self, holder: str, size: int) -> None:
        """Give so many bytes back."""


class SpoolFile(Protocol):
    """A file while it is written, or opened to be read. What is not kept is gone with `close`, or with the process."""

    size: int
    """How many bytes it has."""

    async def append(self, data: bytes) -> None:
        """Add bytes at the end. Unavailable where the tenant may have no more of it, DiskFull without room."""

    async def read(self, start: int, end: int) -> bytes:
        """Return bytes `[start, end)`; Truncated if there are fewer."""

    async def keep(self, version: int = 0) -> None:
        """Make it that version of the part it was begun as, durable when this returns; other versions stay."""

    async def close(self) -> None:
        """Let go of it; its space is free unless it was kept. Closing it again is fine."""


class Spool(Protocol):
    """Parts of uploads by recording, number and version. Holds ciphertext alone, and counts it for the tenant."""

    async def prepare(self, recording: RecordingId) -> None:
        """Make a durable place for a recording's parts."""

    async def begin(self, recording: RecordingId, number: int, *, tenant: str) -> SpoolFile:
        """Return a new file for a part."""

    async def scratch(self, *, tenant: str) -> SpoolFile:
        """Return a new file that has no name and cannot be kept: a crash leaves nothing of it."""

    async def open(self, recording: RecordingId, number: int, version: int = 0) -> SpoolFile:
        """Return a version of a part that was kept, to be read; NotFound."""

    async def kept(self) -> Mapping[RecordingId, Mapping[tuple[int, int], int]]:
        """Return every place and what it keeps: sizes by part and version. What was begun and not kept is removed.

        Nothing of it is counted yet.
        """

    async def drop(self, recording: RecordingId, *, tenant: str) -> None:
        """Remove a recording's place with all its parts, and give back their bytes; an absent one is fine."""
