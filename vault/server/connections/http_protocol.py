"""The HTTP protocol between a socket and its handler: aiohttp's parser with bounds of its own, and back-pressure.

This uses aiohttp below its public surface: it derives from the server's protocol class. The dependency is pinned to the
release series it was written for, and every test over HTTP covers it.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestHandler

from vault.errors import TooLarge
from vault.ids import TenantId
from vault.ports.journal import Journal
from vault.server.connections.connections import Connection
from vault.server.refusal_log import Refusals

# -- backpressure -------------------------------------------------------------------------------------------------
# Stops reading from recorders while too many of their bytes are not durable yet.
#
# One budget, `journal.max_undurable_bytes`, covers all protocols. It counts bytes that wait in the journal for a
# commit, and bytes that were read from connections and are not in the journal yet. Above the budget the recorders'
# connections are not read; below half of it reading resumes. No recorder is refused. A recorder waits for the disk, but
# not for another recorder's audio, because a commit takes all queued bytes.
#
# Live calls and request bodies are held back separately. A live call's audio goes straight into the journal. A body
# may wait for something else, such as the catalog: it counts from the time it is read, and bodies that wait hold back
# only other bodies.


class Held(Protocol):
    """A connection whose reading can be stopped."""

    unused: int
    """Counted bytes that were read from it and are not in the journal yet."""

    def hold(self) -> None:
        """Stop reading."""

    def release(self) -> None:
        """Resume reading."""


class Intake:
    """Audio on its way into the journal, either of live calls or of bodies.

    `undurable` returns how many bytes of both wait in the journal.
    """

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
        """Whether recorders are held back now; their silence then does not count."""
        return not self._open.is_set()

    @property
    def bytes(self) -> int:
        """How many received bytes are not durable yet."""
        return self._unused + self._undurable()

    def silence(self, since: float, now: float) -> float:
        """Return for how many seconds since `since` a recorder was silent and not held back."""
        return 0.0 if self.held else max(now - max(since, self._released_at), 0.0)

    async def opened(self) -> None:
        """Wait until recorders are no longer held back."""
        await self._open.wait()

    def enter(self, line: Held) -> None:
        """Count a connection over which a recorder begins to send."""
        self._lines.add(line)
        if self.held:
            line.hold()

    def leave(self, line: Held) -> None:
        """Stop counting a connection that carries no more audio."""
        self._lines.discard(line)
        self.used(line, line.unused)
        line.release()

    def read(self, line: Held, size: int) -> None:
        """Count `size` bytes that were read from the connection."""
        line.unused += size
        self._unused += size
        if not self.held:
            self.look(self._undurable())

    def used(self, line: Held, size: int) -> None:
        """Stop counting `size` bytes of the connection that are in the journal now, or were not audio."""
        if size:
            line.unused -= size
            self._unused -= size
            self.look(self._undurable())

    def look(self, undurable: int) -> None:
        """Hold or release the recorders by the bound; `undurable` bytes wait in the journal."""
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
    """Have each intake compare with its bound whenever the journal passes its own, and after each commit."""

    def changed(undurable: int) -> None:
        for way in ways:
            way.look(undurable)

    journal.tell(changed)


CALLS = web.AppKey("calls", Intake)
BODIES = web.AppKey("bodies", Intake)


# -- HTTP ---------------------------------------------------------------------------------------------------------

SERVER_NAME: Final = "callvault"
_COUNTED_BYTES: Final = 1 << 12
"""Bodies up to this length are not counted between socket and journal: counting them costs more than it saves."""
_WINDOW_BYTES: Final = 1 << 16
"""How many bytes may wait to be sent before a writer waits."""
_LINE_BYTES: Final = 1 << 16
"""How long a line of a request's head may be: far longer than a fact, so that an overlong fact fails no upload."""
_HEAD_BYTES: Final = 1 << 18
"""The connection is closed after this many bytes of a head without an end."""
_TRAILER_BYTES: Final = 1 << 16
"""How many bytes may follow the last byte of a body's content: its trailers, or what frames a chunk."""
_MOST_WAITING: Final = 2
"""How many requests of a connection may wait for the one before them; then the connection is no longer read."""
_METHOD: Final = re.compile(rb"[A-Z]+(?: |$)")
_NO_ASCII: Final = re.compile(rb"[\x80-\xff]")
_TOO_LARGE: Final = 431
_REFUSED: Final = (
    "HTTP/1.1 431 Request Header Fields Too Large\r\n"
    f"Server: {SERVER_NAME}\r\nRequest-Id: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


class HttpLine(RequestHandler):
    """One HTTP connection."""

    __slots__ = (
        "_first_line",
        "_head_bytes",
        "_head_of",
        "_newest_body",
        "_trailer_bytes",
        "_trailers_after",
        "connection",
        "held",
        "intake",
        "refusals",
        "unused",
    )

    def __init__(self, connection: Connection, server: web.Server, refusals: Refusals, **settings: Any) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            **settings,
        )
        self._max_msg_queue_size, self._msg_queue_resume_size = _MOST_WAITING, _MOST_WAITING - 1
        self._newest_body: StreamReader | None = None
        """The body of the latest request whose head is complete."""
        self._head_of = -1
        """The number of requests before the one whose head began last."""
        self._head_bytes = 0
        self._first_line = False
        self._trailers_after: tuple[StreamReader | None, int] = None, 0
        """The body that arrives, and how much content it had when it had some last."""
        self._trailer_bytes = 0
        """How many bytes arrived since then."""
        self.refusals = refusals
        self.connection = connection
        connection.use(self)
        self.held = False
        self.intake: Intake | None = None
        """Set while the connection carries a recorder's audio."""
        self.unused = 0

    def begin_audio(self, intake: Intake) -> None:
        """Count the connection, because it begins to carry a recorder's audio."""
        self.intake = intake
        intake.enter(self)

    def end_audio(self) -> None:
        """Stop counting the connection, because the audio has ended or is given up."""
        if self.intake is not None:
            intake, self.intake = self.intake, None
            intake.leave(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        self.connection.connected(transport)
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=_WINDOW_BYTES)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note that the connection is closed."""
        self.connection.closed()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Continue writing, because the other end reads again."""
        self.connection.has_read()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse arrived bytes."""
        if self.intake is not None and len(data) > _COUNTED_BYTES:
            self.intake.read(self, len(data))
        if data and not self._upgraded and (self._newest_body is None or self._newest_body.is_eof()):
            data = self._heading(data)
        super().data_received(data)
        if self._messages:
            self._newest_body = self._messages[-1][1]
        if self._newest_body is not None and not self._newest_body.is_eof():
            self._trailing(self._newest_body, len(data))

    def _heading(self, data: bytes) -> bytes:
        """Return a piece of a head with the non-ASCII bytes of its address escaped, also for a request that waits.

        RFC 3986 does not allow such bytes and the parser refuses them, but curl sends an address as it was typed.
        """
        if self._head_of != self._request_count:
            self._head_of, self._head_bytes = self._request_count, 0
            self._first_line = _METHOD.match(data) is not None  # else the head began after another request's body
        if self._head_bytes > _HEAD_BYTES:
            self._refuse_head()
        self._head_bytes += len(data)
        if not self._first_line:
            return data
        line, end, rest = data.partition(b"\n")
        self._first_line = not end
        return data if line.isascii() else _NO_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], line) + end + rest

    def _trailing(self, body: StreamReader, size: int) -> None:
        """Refuse a request whose body goes on for too long without content: the parser keeps all of its trailers."""
        if self._trailers_after != (body, body.total_bytes):
            self._trailers_after, self._trailer_bytes = (body, body.total_bytes), 0
            return
        self._trailer_bytes += size
        if self._trailer_bytes > _TRAILER_BYTES:
            self.close()  # what still comes is not parsed, and the connection ends with its answer
            body.set_exception(TooLarge(f"the request's trailers are longer than {_TRAILER_BYTES >> 10} KiB"))

    def _refuse_head(self) -> None:
        """Answer 431 and close; only close if the answer would land in the middle of another one."""
        identifier = secrets.token_hex(8)
        self.refusals.note(
            status=_TOO_LARGE, problem=f"http_{_TOO_LARGE}", dialect="unknown", facts={"request_id": identifier}
        )
        if self.transport is not None:
            if self._request_in_progress or self._messages:
                self.transport.abort()
            else:
                self.transport.write((_REFUSED % identifier).encode())
        self.force_close()

    def hold(self) -> None:
        """Stop reading."""
        self.held = True
        self._pause_transport_reading()

    def release(self) -> None:
        """Resume reading, unless aiohttp's own buffers are full."""
        if self.held:
            self.held = False
            if not self._reading_paused and not self._buffer_paused:
                self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if not self.held:
            super()._resume_transport_reading()

    @property
    def answering(self) -> bool:
        """Whether a request is being answered; a WebSocket without a call has its own deadline."""
        return self._request_in_progress

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer bytes that are not an HTTP request, without naming the server's version."""
        answer = super().handle_error(request, status, exc, message)
        answer.headers["Server"] = SERVER_NAME
        answer.headers["Request-Id"] = identifier = secrets.token_hex(8)
        self.refusals.note(status=status, problem=f"http_{status}", dialect="unknown", facts={"request_id": identifier})
        return answer


def identify(request: web.BaseRequest, tenant: TenantId | None) -> None:
    """Count the request's connection for a tenant or the operators; Unavailable if there is no place."""
    if isinstance(request.protocol, HttpLine):
        request.protocol.connection.identify(tenant)


def arrived(content: StreamReader) -> bytes:
    """Return the bytes of a body that arrived before its connection broke; aiohttp itself no longer returns them."""
    content._exception = None  # noqa: SLF001  # there is no public way to take an exception back
    return content.read_nowait()
