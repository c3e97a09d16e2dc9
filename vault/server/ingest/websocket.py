"""Live calls over WebSocket (RFC 6455): one connection for each call; the first message shows its dialect."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import EofStream, WebSocketError, WSCloseCode, WSMessage, WSMsgType, web
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http import WebSocketReader
from yarl import URL

from vault.access.permissions import Act
from vault.errors import Invalid, Unauthenticated, UploadStalled, VaultError
from vault.ids import TenantId
from vault.model import Principal
from vault.protocol.facts.metadata import first_of_each
from vault.protocol.live.binary import SUBPROTOCOLS
from vault.protocol.live.events import Audio, Dialect, Ended, Event, Handshake, LeftOut, Say, Started
from vault.protocol.live.recognise import recognise
from vault.server.connections.http_protocol import CALLS, HttpLine
from vault.server.context import CONFIG, VAULT, came_from, claims, path_tenant, principal
from vault.server.ingest.body import IdleTimer
from vault.server.operation import Answer, Operations
from vault.server.problems import close_code, status_of
from vault.server.refused_request import DIALECT, tell
from vault.services.ingest.live import Feed
from vault.services.people.access import ended
from vault.services.vault import Vault
from vault.telemetry import request_id

# -- reading frames -----------------------------------------------------------------------------------------------
# A WebSocket that offers messages as they are parsed, and requires its client to mask them.
#
# A live call sends ten to fifty messages a second. For each one, aiohttp's `receive` costs a future, a wake-up and a
# task switch, which is more than sealing its audio. `Inlet` replaces aiohttp's queue between parser and reader. While
# the reader waits and the queue is empty, a message is first offered to `take`, in the turn of the event loop that
# parsed it. A message that `take` cannot finish at once is queued and wakes the reader. Order and back-pressure remain
# aiohttp's.
#
# `ClientFrames` ends a connection at the first frame without a mask (RFC 6455 section 5.1), which aiohttp's parser
# would accept: a client could make a proxy in between see requests in such frames.
#
# This uses aiohttp below its public surface at one place, `_post_start`, which builds the queue. The dependency is
# pinned to the release series it was written for, and the tests of every WebSocket dialect cover it.

TURN_MESSAGES: Final = 64
"""How many messages of one connection a turn of the event loop handles: others, and probes, wait for no more."""
_QUEUE_BYTES: Final = 1 << 16
_CLOSE_SECONDS: Final = 5.0
"""How long the recorder may take to answer a close."""
_MASKED: Final = 0x80
_SHORT_HEADER: Final = 2
_LONG_HEADER: Final = 4
_LONGEST_HEADER: Final = 10
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_MASK_BYTES: Final = 4
WAKE: Final = WSMessage(WSMsgType.CONTINUATION, None, None)
"""A message that the vault itself queues, to wake the reader for the events that `take` left."""


class Inlet(WebSocketDataQueue):
    """Offers each data message to `take`, if that is set, the queue is empty and the turn has room for it."""

    take: Callable[[str | bytes], bool] | None = None
    _room = TURN_MESSAGES

    def begin_turn(self) -> None:
        """Allow messages of the bytes that were just read to be taken at once, as many as a turn of the loop has."""
        self._room = TURN_MESSAGES

    def offer_to(self, take: Callable[[str | bytes], bool] | None) -> None:
        """Offer messages to `take` from now on; None: queue them."""
        self.take = take

    def feed_data(self, data: Any, size: int) -> None:
        """Offer the message, or queue it."""
        self._room -= 1
        if (
            self.take is None
            or self._buffer
            or self._room < 0
            or (data[0] is not WSMsgType.BINARY and data[0] is not WSMsgType.TEXT)
            or not self.take(data[1])
        ):
            super().feed_data(data, size)

    @property
    def holds(self) -> bool:
        """Whether a message waits for the reader; later messages must wait behind it."""
        return bool(self._buffer)

    def wake(self) -> None:
        """Wake the reader."""
        super().feed_data(WAKE, 0)


class ClientFrames(WebSocketReader):
    """Passes a client's frames on until one is not masked; `queue` then fails with close code 1002."""

    def __init__(self, queue: Inlet, max_message_bytes: int, *, compress: bool) -> None:
        super().__init__(queue, max_message_bytes, compress, True)
        self._into = queue
        self._left = 0
        """How many bytes of the present frame are still to come, including its masking key."""
        self._begun = b""
        """The beginning of a frame's header that came in pieces."""
        self._refused = False

    def feed_data(self, data: bytes | bytearray | memoryview) -> tuple[bool, bytes]:
        """Parse arrived bytes; return (True, …) once no more are accepted."""
        size = len(data)
        self._into.begin_turn()
        if size >= _LONG_HEADER and not self._left and not self._begun:
            # Most reads are one whole frame.
            length = data[1] & 0x7F
            if data[1] & 0x80 and size == (
                length + 6 if length < _TWO_BYTES else (data[2] << 8 | data[3]) + 8 if length == _TWO_BYTES else -1
            ):
                return super().feed_data(data)
        if self._refused:
            super().feed_data(b"")  # what came before that frame may still wait for room in the queue
            return True, b""
        sound = self._masked(bytes(data))
        if sound == size:
            return super().feed_data(data)
        self._refused = True
        super().feed_data(data[:sound])
        self._into.set_exception(WebSocketError(WSCloseCode.PROTOCOL_ERROR, "a client must mask its frames"))
        return True, b""

    def _masked(self, data: bytes) -> int:
        """Return how many of the bytes come before the first unmasked frame; all if there is none."""
        at, size = 0, len(data)
        while at < size:
            # Most are whole short frames, of which a read may have thousands.
            if (
                at + _SHORT_HEADER < size
                and not self._left
                and not self._begun
                and _MASKED <= data[at + 1] < _MASKED | _TWO_BYTES
            ):
                after = at + _SHORT_HEADER + _MASK_BYTES + (data[at + 1] & 0x7F)
                if after <= size:
                    at = after
                    continue
            if self._left:
                taken = min(self._left, len(data) - at)
                self._left -= taken
                at += taken
                continue
            header = self._begun + data[at : at + _LONGEST_HEADER]
            if len(header) < _SHORT_HEADER:
                self._begun = header
                return len(data)
            if not header[1] & 0x80:
                return at
            length = header[1] & 0x7F
            wide = {_TWO_BYTES: 2, _EIGHT_BYTES: 8}.get(length, 0)
            whole = _SHORT_HEADER + wide
            if len(header) < whole:
                self._begun = header
                return len(data)
            at += whole - len(self._begun)
            self._begun = b""
            self._left = _MASK_BYTES + (int.from_bytes(header[_SHORT_HEADER:whole]) if wide else length)
        return at


class LiveSocket(web.WebSocketResponse):
    """A WebSocket with an `Inlet`; its reader answers the recorder's close and pings."""

    inlet: Inlet

    def __init__(self, *, subprotocols: tuple[str, ...], max_message_bytes: int) -> None:
        super().__init__(
            protocols=subprotocols,
            max_msg_size=max_message_bytes,
            timeout=_CLOSE_SECONDS,
            autoclose=False,
            autoping=False,
        )
        self._bound = max_message_bytes

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: Any) -> None:
        self._ws_protocol = protocol
        self._writer = writer
        self.inlet = self._reader = Inlet(request.protocol, _QUEUE_BYTES, loop=asyncio.get_running_loop())
        self._parser = ClientFrames(self.inlet, self._bound, compress=bool(self._compress))
        request.protocol.set_parser(self._parser)
        request.protocol.keep_alive(False)


# -- recording a connection ---------------------------------------------------------------------------------------

_MAX_MESSAGE_BYTES: Final = 1 << 18
_FIRST_SECONDS: Final = 10.0
"""How long a connection may stay open without identifying its call, in seconds; pings do not count."""
_LATER_SECONDS: Final = 0.5
"""Seconds until the next check, while the vault is busy with a connection's first messages."""
_OF_THE_OTHER_END: Final = (ConnectionError, WebSocketError, EofStream, TimeoutError)
"""Errors that the recorder's end causes; many do not answer the server's close, or hang up instead."""
_SUBPROTOCOLS: Final = (*sorted(SUBPROTOCOLS), "media")

OPERATIONS: Final = Operations("ingest")


logger = logging.getLogger(__name__)


@OPERATIONS.raw(
    "GET /v1/ingest/{tenant}/ws",
    Act.INGEST,
    {101: Answer(text="Send the call; the close comes once everything is durable.")},
    queries=("call_key", "rate", "channels", "codec", "from", "to", "direction"),
    problems=(422,),
)
async def stream_recording(request: web.Request) -> web.StreamResponse:
    """Stream a live call over WebSocket; the dialect is recognised from the first message."""
    return await record(request, subprotocols=_SUBPROTOCOLS)


def _said_in(address: URL) -> Mapping[str, str]:
    """Return the parameters of an address, the first of each name; bytes that are not UTF-8 stay distinguishable."""
    return first_of_each(parse_qsl(address.raw_query_string, keep_blank_values=True, errors="surrogateescape"))


async def record(
    request: web.Request,
    *,
    subprotocols: tuple[str, ...] = (),
    machine: Dialect | None = None,
    actor: Principal | None = None,
    refusal: Callable[[VaultError, bool], Sequence[Say]] = lambda _, __: (),
) -> web.StreamResponse:
    """Record the call of one connection; the close is answered once everything received is durable.

    Without `machine` the dialect is recognised. Without `actor`, whose authorisation has been checked, a token is
    required before the upgrade, unless the dialect can carry it only in its first message. `refusal` returns the
    dialect's messages before a closing refusal, from the error and whether there is a recording.
    """
    vault = request.app[VAULT]
    tenant = path_tenant(request)
    offered = tuple(
        each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if each.strip()
    )
    # A client that offers one of these subprotocols can send a header, and has no other place for a token. So can a
    # client that asks for no WebSocket.
    late = "Upgrade" in request.headers and not set(subprotocols).intersection(offered)
    if actor is None and ("Authorization" in request.headers or not late):
        actor = await principal(request, began=vault.begun.here)
        await vault.access.authorise(actor, Act.INGEST, tenant=tenant, target=tenant)
    socket = LiveSocket(subprotocols=subprotocols, max_message_bytes=_MAX_MESSAGE_BYTES)
    await socket.prepare(request)
    handshake = Handshake(subprotocols=offered, query=_said_in(request.rel_url))
    line = _Line(vault, request, socket, tenant=tenant, actor=actor, handshake=handshake, machine=machine)
    try:
        await line.run()
        await socket.close(code=WSCloseCode.OK)
        if isinstance(failure := socket.exception(), Exception) and not isinstance(failure, _OF_THE_OTHER_END):
            logger.error("a live call failed unexpectedly", exc_info=failure)
    except VaultError as error:
        vault.metrics.ingest_refused.labels(error.code).inc()
        code, reason = close_code(error, request_id=request_id.get())
        if line.dialect is not None:
            request[DIALECT] = line.dialect
        tell(request, status=status_of(error), failure=error, close=code)
        farewells = refusal(error, line.begun)
        with suppress(VaultError):
            await line.salvage()
        for farewell in farewells:
            await line.say(farewell)
        await socket.close(code=code, message=reason)
    finally:
        line.lost()
    return socket


class _Line:
    """One connection from its first message to its end.

    `_take` seals audio in the turn of the event loop that read it. Events that have to wait are put into `_rest` for
    the connection's task.
    """

    def __init__(
        self,
        vault: Vault,
        request: web.Request,
        socket: LiveSocket,
        *,
        tenant: TenantId,
        actor: Principal | None,
        handshake: Handshake,
        machine: Dialect | None,
    ) -> None:
        self._vault = vault
        self._request = request
        self._socket = socket
        self._tenant = tenant
        self._actor = actor
        self._machine = machine
        self._handshake = handshake
        self._feed: Feed | None = None
        self._rest: deque[Event] = deque()
        self._failure: VaultError | None = None
        self._ended = False
        self._uncounted = 0
        self._handled = 0
        self._intake = request.app[CALLS]
        self._loop = asyncio.get_running_loop()
        self._idle_seconds = request.app[CONFIG].server.idle_timeout.total_seconds()
        self._quiet = False
        self._revoked = False
        self._leave_token: Callable[[], None] = lambda: None
        self._pinged_at = -math.inf
        self._deaf = False
        """Whether the recorder no longer reads."""
        self._first_by = self._loop.time() + min(_FIRST_SECONDS, self._idle_seconds)
        self._idle = IdleTimer(self._intake, left=self._left, tell=self._tell_quiet)

    def _enter(self) -> None:
        if self._actor is not None:
            self._leave_token = self._vault.access.underway.enter(self._actor.token_id, self._revoke)

    # -- in the turn of the event loop that read a message ------------------------------------------------------

    def _left(self, quiet: float) -> float:
        self._count()
        if self._feed is not None:
            return self._idle_seconds - quiet
        return self._first_by - self._loop.time() if quiet else _LATER_SECONDS

    def _tell_quiet(self) -> None:
        self._quiet = True
        self._socket.inlet.wake()

    def _revoke(self) -> None:
        self._revoked = True
        self._socket.inlet.offer_to(None)
        self._socket.inlet.wake()

    def _take(self, message: str | bytes) -> bool:
        """Write a message into the recording at once; events that have to wait or failed are left to the task."""
        assert self._feed is not None
        assert self._machine is not None
        self._idle.heard_at = self._loop.time()  # set directly: a call for every piece costs too much
        try:
            events = self._machine.receive(message)
            for number, event in enumerate(events):
                if type(event) is Audio and self._feed.take(event.data):
                    self._uncounted += len(event.data)
                else:
                    self._leave(events[number:])
                    break
        except VaultError as error:
            self._failure = error
            self._leave(())
        return True

    def _leave(self, events: Iterable[Event]) -> None:
        self._rest.extend(events)
        self._socket.inlet.offer_to(None)
        self._socket.inlet.wake()

    def _count(self) -> None:
        if self._uncounted and self._machine is not None:
            self._vault.metrics.ingest_bytes.labels(self._machine.name).inc(self._uncounted)
            self._uncounted = 0

    # -- in the connection's task -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write every message into the recording, until the end is durable or the connection is lost."""
        self._enter()
        inlet = self._socket.inlet
        while not self._ended:
            if self._feed is not None and not self._rest and self._failure is None and not inlet.holds:
                inlet.offer_to(self._take)
            self._idle.waiting()
            message = await self._next()
            inlet.offer_to(None)
            self._idle.taking()
            await self._settle()
            if self._revoked:
                raise ended()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    await self._heard(message.data)
                case WSMsgType.PING:
                    self._idle.heard()
                    await self._send(message.data, WSMsgType.PONG)
                case WSMsgType.PONG:
                    self._idle.heard()
                case WSMsgType.CONTINUATION:
                    pass
                case WSMsgType.CLOSE:
                    self._deaf = True
                    await self._gone(message.data)
                    return
                case _:
                    self._deaf = True
                    await self._gone(None)
                    return
            if self._quiet:
                await self._fell_silent()

    async def _next(self) -> WSMessage:
        self._handled += 1
        if not self._handled % TURN_MESSAGES:
            await asyncio.sleep(0)  # what is in the queue is returned without a turn for anybody else
        return await self._socket.receive()

    async def _settle(self) -> None:
        """Carry out the events that `_take` left, in order, before any later message."""
        while self._rest:
            await self._carry(self._rest.popleft())
            self._idle.heard()
        if self._failure is not None:
            raise self._failure

    async def _heard(self, message: str | bytes) -> None:
        if self._machine is None:
            self._machine = recognise(self._handshake, message)
        for event in self._machine.receive(message):
            await self._carry(event)
        self._idle.heard()

    async def salvage(self) -> None:
        """After a refusal, store the audio that came before it and still waits in the dialect's machine."""
        if self._machine is not None and self._feed is not None and not self._ended:
            for event in self._machine.closed(None):
                if type(event) is Audio:
                    await self._carry(event)
            await self._feed.note_left_out()

    async def _gone(self, code: int | None) -> None:
        if self._machine is not None:
            for event in self._machine.closed(code):
                await self._carry(event)

    async def _fell_silent(self) -> None:
        """Act on the idle time: ping a recorder whose call is paused, which may be silent; end any other."""
        self._quiet = False
        for event in () if self._machine is None else self._machine.idle():
            await self._carry(event)
        if self._ended:
            return
        if self._feed is None or self._idle.heard_at < self._pinged_at:
            raise UploadStalled("nothing came for too long, not even a pong; what was received is durable")
        self._pinged_at = self._loop.time()
        self._idle.again(self._idle_seconds)
        await self._send(b"", WSMsgType.PING)

    async def _carry(self, event: Event) -> None:
        match event:
            case Say():
                await self.say(event)
            case Started():
                await self._begin(event)
            case Ended() if self._feed is None:
                self._ended = True
            case _ if self._feed is None:
                raise Invalid("the recorder sent audio before it identified its call")
            case Ended():
                await self._feed.apply(event)
                self._ended = True
                assert self._machine is not None
                for farewell in self._machine.closing_messages():
                    await self.say(farewell)
            case LeftOut():
                assert self._machine is not None
                self._vault.metrics.frames_left_out.labels(self._machine.name, event.why.value).inc()
                await self._feed.apply(event)
            case _:
                await self._feed.apply(event)
                if type(event) is Audio:
                    self._uncounted += len(event.data)

    async def _begin(self, started: Started) -> None:
        if self._actor is None:
            if started.token is None:
                raise Unauthenticated("this needs a token: in the Authorization header, or as the dialect carries it")
            claims(self._request, started.token)
            self._actor = await self._vault.access.authenticate(started.token, began=self._vault.begun.here)
            came_from(self._request, self._actor)
            await self._vault.access.authorise(self._actor, Act.INGEST, tenant=self._tenant, target=self._tenant)
            self._enter()
        assert self._machine is not None
        feed = Feed(
            self._vault.feeds,
            tenant=self._tenant,
            actor=self._actor,
            silent_seconds=lambda: self._idle.seconds,
            replaced=self._replaced,
            waiting=self._machine.waiting,
        )
        await feed.begin(started, call_key=self._handshake.query.get("call_key"))
        self._feed = feed
        if isinstance(self._request.protocol, HttpLine):
            self._intake.enter(self._request.protocol)

    @property
    def dialect(self) -> str | None:
        """The recorder's dialect, once it is known."""
        return None if self._machine is None else self._machine.name

    @property
    def begun(self) -> bool:
        """Whether there is a recording."""
        return self._feed is not None

    def _replaced(self) -> None:
        """End this connection, because another one continues the recording."""
        if self._request.transport is not None:
            self._request.transport.close()

    async def say(self, event: Say) -> None:
        """Send the recorder a message, unless it is gone."""
        if isinstance(event.payload, str):
            await self._send(event.payload.encode(), WSMsgType.TEXT)
        else:
            await self._send(event.payload, WSMsgType.BINARY)

    async def _send(self, payload: bytes, kind: WSMsgType) -> None:
        if self._deaf:
            return
        try:
            async with asyncio.timeout(self._idle_seconds):
                await self._socket.send_frame(payload, kind)
        except (ConnectionError, TimeoutError):
            # The recorder is gone or does not read. Its earlier audio is still stored.
            self._deaf = True
            if self._request.transport is not None:
                self._request.transport.abort()

    def lost(self) -> None:
        """The connection is lost: without an end the grace period begins."""
        self._idle.close()
        self._leave_token()
        self._count()
        if isinstance(self._request.protocol, HttpLine):
            self._intake.leave(self._request.protocol)
        if self._feed is not None:
            self._feed.lost()
