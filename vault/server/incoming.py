"""A request's body as pieces, for handlers that another request may interrupt."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from vault.errors import Locked, Unavailable

_PIECE_BYTES: Final = 1 << 18
_MAGIC_BYTES: Final = 16


class Incoming:
    """The body in pieces of at most 256 KiB; `heard` is called for each.

    Unavailable when nothing has come for `idle_seconds`, Locked once `stop` was called.
    """

    def __init__(self, request: web.Request, *, idle_seconds: float) -> None:
        self._content = request.content
        self._idle = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting_since = math.inf
        """When the client began to be waited for; never, while what it sent is being taken."""
        self._watch = self._loop.call_later(idle_seconds, self._look)
        self._held: deque[bytes] = deque()
        """Taken from the connection and not handed out yet."""
        self._stopped = False
        self.heard: Callable[[], None] = lambda: None

    def stop(self) -> None:
        """Another request goes on in this one's place: hand out nothing more."""
        self._stopped = True
        self._content.set_exception(TimeoutError())

    def close(self) -> None:
        """Stop watching the connection."""
        self._watch.cancel()

    def _look(self) -> None:
        """End the body if nothing came for the idle time. One timer a request: arming one for each piece costs more."""
        quiet = max(self._loop.time() - self._waiting_since, 0.0)
        if quiet < self._idle:
            self._watch = self._loop.call_later(self._idle - quiet, self._look)
        else:
            self._content.set_exception(TimeoutError())

    async def first(self) -> bytes:
        """Return the first bytes, enough to recognise a container by, without taking them."""
        first = b"".join(self._held)
        while len(first) < _MAGIC_BYTES and (more := await self._read()):
            first += more
        self._held = deque([first] if first else [])
        return first

    async def next(self) -> bytes:
        """Return the next piece, or b"" at the end of the body."""
        piece = self._held.popleft() if self._held else await self._read()
        if len(piece) > _PIECE_BYTES:
            self._held.appendleft(piece[_PIECE_BYTES:])
        return piece[:_PIECE_BYTES]

    async def whole(self, check: Callable[[int], None]) -> Sequence[bytes]:
        """Return all there is without taking it; `check` refuses the size before more is read."""
        pieces: deque[bytes] = deque()
        size = 0
        while piece := await self.next():
            size += len(piece)
            check(size)
            pieces.append(piece)
        self._held = pieces
        return pieces

    async def _read(self) -> bytes:
        self._waiting_since = self._loop.time()
        try:
            piece = await self._content.readany()
        except ConnectionError:
            if not self._content.is_eof():
                raise
            # The whole body had arrived: a client that hangs up without waiting for its answer loses nothing. aiohttp
            # would hide those bytes behind the end of the connection, and there is no public way to take that back.
            self._content._exception = None  # noqa: SLF001
            piece = self._content.read_nowait()
        except TimeoutError as error:
            if self._stopped:
                raise Locked("another request continues this upload in place of this one") from error
            raise Unavailable(
                "nothing arrived for too long, so the request was ended; what was received is kept",
                hint="ask with HEAD where to continue",
            ) from error
        finally:
            self._waiting_since = math.inf
        self.heard()
        return piece
