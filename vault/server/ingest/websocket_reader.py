"""A WebSocket whose messages can be taken where they are parsed, and whose client has to mask them.

A live call sends ten to fifty messages a second. `receive` costs a future, a wake-up and a task switch for each, more
than sealing its audio does. `Inlet` is aiohttp's own queue between parser and reader: while the reader waits and
nothing is queued, a message is first offered to `take`, in the turn of the loop that parsed it; only what that cannot
finish at once is queued and wakes the reader. Order and back-pressure stay aiohttp's.

`ClientFrames` ends a connection at the first frame without a mask (RFC 6455 section 5.1), which aiohttp's parser would
take: a proxy between could be made to see requests in it.

This reaches below aiohttp's public surface at one place, `_post_start`, which builds the queue; the dependency is
bounded to the release series it was written for, and the tests of every WebSocket dialect go through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType, web
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http import WebSocketReader

_QUEUE_BYTES: Final = 1 << 16
_CLOSE_SECONDS: Final = 5.0
"""How long the recorder may take to answer a close."""
_SHORT_HEADER: Final = 2
_LONG_HEADER: Final = 4
_LONGEST_HEADER: Final = 10
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_MASK_BYTES: Final = 4
WAKE: Final = WSMessage(WSMsgType.CONTINUATION, None, None)
"""Not from the recorder: wakes the reader to look at what was left for it."""


class Inlet(WebSocketDataQueue):
    """Offers each data message to `take`, while that is set and nothing waits in the queue."""

    take: Callable[[str | bytes], bool] | None = None

    def offer_to(self, take: Callable[[str | bytes], bool] | None) -> None:
        """Offer what comes to this one from now on; None: queue it."""
        self.take = take

    def feed_data(self, data: Any, size: int) -> None:
        """Take the message at once, or queue it."""
        if (
            self.take is None
            or self._buffer
            or (data[0] is not WSMsgType.BINARY and data[0] is not WSMsgType.TEXT)
            or not self.take(data[1])
        ):
            super().feed_data(data, size)

    @property
    def holds(self) -> bool:
        """Whether a message waits for the reader: what is parsed now comes after it."""
        return bool(self._buffer)

    def wake(self) -> None:
        """Let the reader look up."""
        super().feed_data(WAKE, 0)


class ClientFrames(WebSocketReader):
    """Hands on what a client sends until a frame comes that is not masked; `queue` then fails with close code 1002."""

    def __init__(self, queue: Inlet, max_message_bytes: int, *, compress: bool) -> None:
        super().__init__(queue, max_message_bytes, compress, True)
        self._into = queue
        self._left = 0
        """Bytes of the present frame still to come, its masking key included."""
        self._begun = b""
        """The beginning of a frame's header, if it came in pieces."""
        self._refused = False

    def feed_data(self, data: bytes | bytearray | memoryview) -> tuple[bool, bytes]:
        """Take what has arrived; (True, …) once nothing more is wanted."""
        size = len(data)
        if size >= _LONG_HEADER and not self._left and not self._begun:
            # Almost every read is one whole frame.
            length = data[1] & 0x7F
            if data[1] & 0x80 and size == (
                length + 6 if length < _TWO_BYTES else (data[2] << 8 | data[3]) + 8 if length == _TWO_BYTES else -1
            ):
                return super().feed_data(data)
        if self._refused:
            return True, b""
        sound = self._masked(bytes(data))
        if sound == size:
            return super().feed_data(data)
        self._refused = True
        super().feed_data(data[:sound])
        self._into.set_exception(WebSocketError(WSCloseCode.PROTOCOL_ERROR, "a client's frames are masked"))
        return True, b""

    def _masked(self, data: bytes) -> int:
        """Return how many of the bytes come before the first frame that is not masked, all if there is none."""
        at = 0
        while at < len(data):
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
    """A WebSocket with an `Inlet`; what answers the recorder's close and pings is the one who reads them."""

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
