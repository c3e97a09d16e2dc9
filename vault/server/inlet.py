"""A WebSocket whose messages can be taken where they are parsed, without waking a task for each.

A live call sends ten to fifty messages a second. `receive` costs a future, a wake-up and a task switch for each, more
than sealing its audio does. `Inlet` is aiohttp's own queue between parser and reader: while the reader waits and
nothing is queued, a message is first offered to `take`, in the turn of the loop that parsed it; only what that cannot
finish at once is queued and wakes the reader. Order and back-pressure stay aiohttp's.

This reaches below aiohttp's public surface at one place, `_post_start`, which builds the queue; the dependency is
bounded to the release series it was written for, and the tests of every WebSocket dialect go through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import WSMessage, WSMsgType, web
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http import WebSocketReader

_QUEUE_BYTES: Final = 1 << 16
_CLOSE_SECONDS: Final = 5.0
"""How long the recorder may take to answer a close."""
WAKE: Final = WSMessage(WSMsgType.CONTINUATION, None, None)
"""Not from the recorder: wakes the reader to look at what was left for it."""


class Inlet(WebSocketDataQueue):
    """Offers each data message to `take`, while that is set and nothing waits in the queue."""

    take: Callable[[str | bytes], bool] | None = None

    def feed_data(self, data: Any, size: int) -> None:
        """Take the message at once, or queue it."""
        if (
            self.take is None
            or self._buffer
            or (data[0] is not WSMsgType.BINARY and data[0] is not WSMsgType.TEXT)
            or not self.take(data[1])
        ):
            super().feed_data(data, size)

    def wake(self) -> None:
        """Let the reader look up."""
        super().feed_data(WAKE, 0)


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
        self._parser = WebSocketReader(self._reader, self._bound, bool(self._compress), True)
        request.protocol.set_parser(self._parser)
        request.protocol.keep_alive(False)
