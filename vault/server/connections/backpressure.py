"""Back-pressure: stops reading from recorders while too much of what they sent is not durable yet.

One budget, `journal.max_undurable_bytes`, covers all protocols. It counts what waits in the journal for its commit, and
what was read from connections and is not in the journal yet. Above the budget nothing more is read from recorders'
connections; below half of it reading resumes. No recorder is refused. A recorder waits for the disk but not for
another's audio: a commit takes all that is queued.

Live calls and request bodies are held back separately. A live call's audio goes straight into the journal. A body may
wait for something else, such as the catalog: it counts from the time it is read, and bodies that wait hold back only
other bodies.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from vault.ports.journal import Journal


class Held(Protocol):
    """A connection whose reading can be stopped."""

    unused: int
    """Counted bytes that were read from it and are not in the journal yet."""

    def hold(self) -> None:
        """Stop reading."""

    def release(self) -> None:
        """Resume reading."""


class Intake:
    """Audio on its way into the journal, of live calls or of bodies; `undurable` bytes of both wait in the journal."""

    def __init__(self, *, bound: int, undurable: Callable[[], int]) -> None:
        self._bound = bound
        self._undurable = undurable
        self._lines: set[Held] = set()
        self._unused = 0
        self._open = asyncio.Event()
        self._open.set()
        self._released_at = -math.inf

    @property
    def held(self) -> bool:
        """Whether recorders are held back, so that their silence is not their own."""
        return not self._open.is_set()

    @property
    def bytes(self) -> int:
        """Bytes that were received and are not durable."""
        return self._unused + self._undurable()

    def silence(self, since: float, now: float) -> float:
        """Return the seconds of a recorder's own silence, since it was last heard or last asked for more at `since`."""
        return 0.0 if self.held else max(now - max(since, self._released_at), 0.0)

    async def opened(self) -> None:
        """Wait until recorders are not held back."""
        await self._open.wait()

    def enter(self, line: Held) -> None:
        """Count a connection over which a recorder begins to send."""
        self._lines.add(line)
        if self.held:
            line.hold()

    def leave(self, line: Held) -> None:
        """Stop counting a connection over which no more audio comes."""
        self._lines.discard(line)
        self.used(line, line.unused)
        line.release()

    def read(self, line: Held, size: int) -> None:
        """Count bytes that were read from it."""
        line.unused += size
        self._unused += size
        if not self.held:
            self.look(self._undurable())

    def used(self, line: Held, size: int) -> None:
        """Stop counting bytes of it that are in the journal now, or were not audio."""
        if size:
            line.unused -= size
            self._unused -= size
            self.look(self._undurable())

    def look(self, undurable: int) -> None:
        """Compare with the bound; `undurable` bytes wait in the journal."""
        if self.held:
            if (self._unused + undurable) * 2 <= self._bound:
                self._released_at = asyncio.get_running_loop().time()
                self._open.set()
                for line in tuple(self._lines):
                    line.release()
        elif self._unused + undurable > self._bound:
            self._open.clear()
            for line in tuple(self._lines):
                line.hold()


def watch(journal: Journal, *ways: Intake) -> None:
    """Have each intake compare whenever the journal passes its bound, and after each of its commits."""

    def changed(undurable: int) -> None:
        for way in ways:
            way.look(undurable)

    journal.tell(changed)


CALLS = web.AppKey("calls", Intake)
BODIES = web.AppKey("bodies", Intake)
