"""One recording while it is open: what has arrived, what is durable, what is stored."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

from vault.model import DataKey, Recording, SegmentRef
from vault.ports.journal import JournalEntry


@dataclass(slots=True, kw_only=True, eq=False)
class IngestSession:
    """An open recording. `stored` is the plaintext offset up to which verified segments exist.

    `digest` runs over every byte appended; it is None when bytes it covered were lost with a failed commit or when the
    process restarted, and is then rebuilt from the durable bytes before the recording continues.
    """

    recording: Recording
    key: DataKey = field(repr=False)
    entry: JournalEntry | None = None
    segments: list[SegmentRef] = field(default_factory=list)
    stored: int = 0
    digest: hashlib._Hash | None = field(default_factory=hashlib.sha256)
    uploads: int = 0
    detached_at: float | None = None
    oldest_unstored_at: float | None = None
    ending: str | None = None
    """The end that is being written; from here on nothing is taken in."""
    ended: str | None = None
    """The end that is durable: "sealed" or "truncated:<why>"."""
    storing: bool = False
    flush: bool = False
    """Store what is durable now, whatever its size and age."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    recorded_segments: int = 0
    """How many of `segments` the catalog already knows."""

    @property
    def durable(self) -> int:
        """Plaintext bytes that survive a crash."""
        return self.stored if self.entry is None else max(self.entry.durable, self.stored)

    @property
    def appended(self) -> int:
        """Plaintext bytes taken in, durable or not."""
        return self.stored if self.entry is None else max(self.entry.appended, self.stored)
