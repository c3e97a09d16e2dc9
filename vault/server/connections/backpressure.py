"""Holds recorders back together, while more of what they sent is not yet durable than the vault has room for.

One budget, `journal.max_undurable_bytes`, for whatever way audio comes in: what waits in the journal for its commit,
and what was read from connections and is not in the journal yet. Above it nothing more is read from any recorder's
connection; below half of it everybody goes on. Nobody is refused. Nobody waits for another's audio longer than for the
disk: a commit takes all that is queued.

Live calls and request bodies are held back apart. A live call's audio goes straight into the journal. A body's may
wait for something else, such as the catalog: it counts from the time it is read, and what of it waits there holds back
bodies alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from vault.ports.journal import Journal


class Held(Protocol):
    """A connection that can be held back."""

    unused: int
    """Bytes read from it that are not in the journal yet, as far as they are counted."""

    def hold(self) -> None:
        """Read nothing more."""

    def release(self) -> None:
        """Read on."""


class Intake:
    """What is on its way into the journal in one way or the other; `undurable` says how much waits in it from both."""

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
        """Whether recorders are held back: none of them is silent by its own will."""
        return not self._open.is_set()

    @property
    def bytes(self) -> int:
        """What was received and is not durable."""
        return self._unused + self._undurable()

    def silence(self, since: float, now: float) -> float:
        """Return for how long a recorder has been silent that was last heard, or asked for more, at `since`."""
        return 0.0 if self.held else max(now - max(since, self._released_at), 0.0)

    async def opened(self) -> None:
        """Wait until recorders are not held back."""
        await self._open.wait()

    def enter(self, line: Held) -> None:
        """A recorder begins to send over this connection."""
        self._lines.add(line)
        if self.held:
            line.hold()

    def leave(self, line: Held) -> None:
        """It sends no more audio."""
        self._lines.discard(line)
        self.used(line, line.unused)
        line.release()

    def read(self, line: Held, size: int) -> None:
        """So many bytes were read from it."""
        line.unused += size
        self._unused += size
        if not self.held:
            self.look(self._undurable())

    def used(self, line: Held, size: int) -> None:
        """So many of them are in the journal, or were not for it."""
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
    """Let every way look whenever the journal passes its bound, and after each of its commits."""

    def changed(undurable: int) -> None:
        for way in ways:
            way.look(undurable)

    journal.tell(changed)


CALLS = web.AppKey("calls", Intake)
BODIES = web.AppKey("bodies", Intake)
