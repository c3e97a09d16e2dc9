"""Request bodies in pieces, and the timer for silent recorders."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from aiohttp import web

from vault.errors import Locked, Unavailable, UploadStalled, VaultError
from vault.server.connections.http_protocol import BODIES, HttpLine, Intake, arrived
from vault.server.context import CONFIG, HOLDER, VAULT
from vault.services.people.access import ended
from vault.services.uploads.resumable import Writer

# -- idle timer ---------------------------------------------------------------------------------------------------


class IdleTimer:
    """Calls `tell` once a recorder has been silent for too long while the vault waits for it; close it when done.

    `left` gets the seconds of silence so far, and returns how many more are permitted. There is one timer for each
    connection, because arming one for each piece of audio costs more.
    """

    __slots__ = ("_intake", "_left", "_loop", "_taking", "_tell", "_timer", "heard_at")

    def __init__(self, intake: Intake, *, left: Callable[[float], float], tell: Callable[[], None]) -> None:
        self._intake = intake
        self._left = left
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._taking = True
        self.heard_at = self._loop.time()
        """When the recorder last sent anything, on the loop's clock."""
        self.again(left(0.0))

    def heard(self) -> None:
        """Note that the recorder sent something."""
        self.heard_at = self._loop.time()

    def waiting(self) -> None:
        """Start measuring, because the vault waits for the recorder from now on."""
        self._taking = False

    def taking(self) -> None:
        """Stop measuring while the vault processes what the recorder sent."""
        self._taking = True

    @property
    def seconds(self) -> float:
        """For how many seconds the vault has waited for the recorder, without the time it was held back."""
        return 0.0 if self._taking else self._intake.silence(self.heard_at, self._loop.time())

    def again(self, seconds: float) -> None:
        """Check again after `seconds`; needed after `tell` was called, which ends the checks."""
        self._timer = self._loop.call_later(seconds, self._look)

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _look(self) -> None:
        left = self._left(self.seconds)
        if left > 0:
            self.again(left)
        else:
            self._tell()


# -- request bodies in pieces -------------------------------------------------------------------------------------

_PIECE_BYTES: Final = 1 << 18
_MAGIC_BYTES: Final = 16
"""How many first bytes recognise any container."""


class Pieces(Protocol):
    """A body's audio in pieces."""

    async def first(self) -> bytes:
        """Return the first bytes, enough to recognise a container by, or b"" for an empty body."""

    async def next(self) -> bytes:
        """Return the next piece, of at most 256 KiB, or b"" at the end of the body."""

    def push_back(self, piece: bytes) -> None:
        """Return `piece` again from the next call."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces until the end of the body."""


class Source:
    """The base of all `Pieces`; a subclass returns further bytes from `more`."""

    def __init__(self) -> None:
        self._held: deque[bytes] = deque()
        """Pieces that were received and not returned yet."""

    async def more(self) -> bytes:
        """Return further bytes, of any size, or b"" at the end."""
        raise NotImplementedError

    def push_back(self, piece: bytes) -> None:
        """Return `piece` again from the next call."""
        if piece:
            self._held.appendleft(piece)

    async def first(self) -> bytes:
        """Return the first bytes, enough to recognise a container by, or b"" for an empty body."""
        piece = await self.next()
        while piece and len(piece) < _MAGIC_BYTES and (more := await self.next()):
            piece += more
        return piece

    async def next(self) -> bytes:
        """Return the next piece, of at most 256 KiB, or b"" at the end of the body."""
        piece = self._held.popleft() if self._held else await self.more()
        if len(piece) > _PIECE_BYTES:
            self._held.appendleft(piece[_PIECE_BYTES:])
        return piece[:_PIECE_BYTES]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.next():
            yield piece


class BodyPieces(Source):
    """The request body; close it when done.

    Raises `stalled` when nothing arrives for too long, Locked after `stop`, and Unauthenticated once the request's
    token was revoked.
    """

    def __init__(self, request: web.Request) -> None:
        super().__init__()
        self._content = request.content
        idle = request.app[CONFIG].server.idle_timeout.total_seconds()
        self._stopped = False
        self._revoked = False
        self._leave = request.app[VAULT].access.underway.enter(request[HOLDER], self._revoke)
        self._intake = request.app[BODIES]
        self._line = request.protocol if isinstance(request.protocol, HttpLine) else None
        self._in_hand = 0
        """Counted bytes of the pieces returned last, until the next call."""
        if self._line is not None:
            self._line.begin_audio(self._intake)
        self._idle = IdleTimer(
            self._intake, left=lambda quiet: idle - quiet, tell=lambda: self._content.set_exception(TimeoutError())
        )

    @property
    def waited(self) -> float:
        """For how many seconds the vault has waited for a byte of the body."""
        return self._idle.seconds

    def close(self) -> None:
        """Stop watching the connection."""
        self._idle.close()
        self._leave()
        if self._line is not None:
            self._line.end_audio()

    def stop(self) -> None:
        """Return no more bytes, because another request replaces this one."""
        self._stopped = True
        self._content.set_exception(TimeoutError())

    def _revoke(self) -> None:
        self._revoked = True
        self._content.set_exception(TimeoutError())

    def stalled(self) -> VaultError:
        """Return the error for a body that stopped coming."""
        return UploadStalled(
            "no audio arrived for too long, so the upload was closed; what was received is durable",
            hint="ask with HEAD where to continue, within the grace period",
        )

    async def more(self) -> bytes:
        """Return what has arrived, or wait for it; raises `stalled` after the idle time."""
        if self._in_hand and self._line is not None:
            self._intake.used(self._line, self._in_hand)
            self._in_hand = 0
        self._idle.heard()
        self._idle.waiting()
        try:
            return await self._content.readany()
        except ConnectionError:
            if not self._content.is_eof():
                raise
            # The connection broke after bytes arrived: a recorder that does not wait for its answer loses none of them.
            return arrived(self._content)
        except TimeoutError as error:
            if self._revoked:
                raise ended() from error
            if self._stopped:
                raise Locked("another request continues this upload in place of this one") from error
            raise self.stalled() from error
        finally:
            self._idle.taking()
            if self._line is not None:
                self._in_hand = self._line.unused


@contextmanager
def writing(body: BodyPieces, *, patience: float) -> Iterator[Writer]:
    """Read the body until its end, or until another request replaces this one because it has become silent."""
    try:
        yield Writer(stop=body.stop, waited=lambda: body.waited, patience=patience)
    finally:
        body.close()


class Incoming(BodyPieces):
    """The body of a resumable upload in pieces of at most 256 KiB; Unavailable if nothing arrives in the idle time."""

    def stalled(self) -> VaultError:
        """Return the error for a body that stopped coming: clients retry after a 503, but give up after a 408."""
        return Unavailable(
            "nothing arrived for too long, so the request was ended; what was received is kept",
            hint="ask with HEAD where to continue",
        )

    async def first(self) -> bytes:
        """Return the first bytes, enough to recognise a container by, and return them again later."""
        piece = await super().first()
        self.push_back(piece)
        return piece

    async def whole(self, check: Callable[[int], None]) -> Sequence[bytes]:
        """Return the whole body, which is returned again later; `check` may refuse its size before more is read."""
        pieces: deque[bytes] = deque()
        size = 0
        while piece := await self.next():
            size += len(piece)
            check(size)
            pieces.append(piece)
        self._held = pieces
        return tuple(pieces)
