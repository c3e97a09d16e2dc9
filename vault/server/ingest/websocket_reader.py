"""A WebSocket that offers messages as they are parsed, and requires its client to mask them.

A live call sends ten to fifty messages a second. `receive` costs a future, a wake-up and a task switch for each, more
than sealing its audio does. `Inlet` is aiohttp's own queue between parser and reader. While the reader waits and
nothing is queued, a message is first offered to `take`, in the turn of the event loop that parsed it. Only what `take`
cannot finish at once is queued and wakes the reader. Order and back-pressure stay aiohttp's.

`ClientFrames` ends a connection at the first frame without a mask (RFC 6455 section 5.1), which aiohttp's parser would
accept: a client could make a proxy in between see requests in such frames.

This uses aiohttp below its public surface at one place, `_post_start`, which builds the queue. The dependency is pinned
to the release series it was written for, and the tests of every WebSocket dialect cover it.
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
"""Not from the recorder: wakes the reader to process what `take` left."""


class Inlet(WebSocketDataQueue):
    """Offers each data message to `take`, if that is set and the queue is empty."""

    take: Callable[[str | bytes], bool] | None = None

    def offer_to(self, take: Callable[[str | bytes], bool] | None) -> None:
        """Offer messages to `take` from now on; None: queue them."""
        self.take = take

    def feed_data(self, data: Any, size: int) -> None:
        """Offer the message, or queue it."""
        if (
            self.take is None
            or self._buffer
            or (data[0] is not WSMsgType.BINARY and data[0] is not WSMsgType.TEXT)
            or not self.take(data[1])
        ):
            super().feed_data(data, size)

    @property
    def holds(self) -> bool:
        """Whether a message waits for the reader, before which no later one may be taken."""
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
        """Bytes of the present frame still to come, its masking key included."""
        self._begun = b""
        """The beginning of a frame's header that came in pieces."""
        self._refused = False

    def feed_data(self, data: bytes | bytearray | memoryview) -> tuple[bool, bytes]:
        """Parse what has arrived; (True, …) once no more is wanted."""
        size = len(data)
        if size >= _LONG_HEADER and not self._left and not self._begun:
            # Most reads are one whole frame.
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
        self._into.set_exception(WebSocketError(WSCloseCode.PROTOCOL_ERROR, "a client must mask its frames"))
        return True, b""

    def _masked(self, data: bytes) -> int:
        """Return how many of the bytes come before the first unmasked frame; all if there is none."""
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
