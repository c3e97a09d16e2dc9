"""A TCP proxy that misbehaves on demand: refuses, stalls, cuts, or delivers a request and loses the answer."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from enum import StrEnum


class Mode(StrEnum):
    FORWARD = "forward"
    REFUSE = "refuse"
    """Nothing listens: connections are refused, as at a stopped server."""
    STALL = "stall"
    """Connections are accepted and nothing ever moves."""
    CUT = "cut"
    """Both directions end after `cut_after` bytes have gone to the side named in `cut`."""
    DROP_ANSWERS = "drop-answers"
    """Requests are delivered and applied; the connection ends where the answer should come."""


class TcpProxy:
    """Forwards `port` to `upstream_port` on the loopback; `set` changes what happens, also to open connections."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.port = 0
        self.mode = Mode.FORWARD
        self.cut_after = 0
        self.cut_upstream = True
        self.answers_dropped = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self._listen()

    async def close(self) -> None:
        await self._unlisten()
        await self._drop_connections()

    async def set(self, mode: Mode, *, cut_after: int = 0, cut_upstream: bool = True) -> None:
        """Switch. REFUSE and CUT also end the connections that are open, so that no pooled one escapes the fault."""
        self.mode, self.cut_after, self.cut_upstream = mode, cut_after, cut_upstream
        if mode in (Mode.REFUSE, Mode.CUT):
            await self._drop_connections()
        if mode is Mode.REFUSE:
            await self._unlisten()
        elif self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    async def _drop_connections(self) -> None:
        tasks = [*self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            with contextlib.suppress(asyncio.CancelledError, OSError):
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
                try:
                    await self._exchange(reader, writer, up_reader, up_writer)
                finally:
                    _abort(up_writer)
        finally:
            _abort(writer)
            self._connections.discard(task)

    async def _exchange(self, reader, writer, up_reader, up_writer) -> None:
        requests = asyncio.create_task(self._pump(reader, up_writer, upstream=True))
        answers = asyncio.create_task(self._pump(up_reader, writer, upstream=False))
        try:
            await asyncio.wait([requests, answers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            requests.cancel()
            answers.cancel()
            await asyncio.gather(requests, answers, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upstream: bool) -> None:
        passed = 0
        while data := await reader.read(1 << 16):
            while self.mode is Mode.STALL:
                await asyncio.sleep(0.02)
            if self.mode is Mode.CUT and upstream is self.cut_upstream:
                writer.write(data[: max(0, self.cut_after - passed)])
                await writer.drain()
                if passed + len(data) >= self.cut_after:
                    # Let what was passed arrive before the reset does.
                    await asyncio.sleep(0.05)
                    return
            elif self.mode is Mode.DROP_ANSWERS and not upstream and not data.startswith(b"HTTP/1.1 100"):
                # An interim answer must pass, or the request's body is never sent and nothing is applied.
                self.answers_dropped += 1
                return
            else:
                writer.write(data)
                await writer.drain()
            passed += len(data)


def _abort(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
        )
    writer.transport.abort()


@contextlib.asynccontextmanager
async def tcp_proxy(upstream_port: int) -> AsyncIterator[TcpProxy]:
    proxy = TcpProxy(upstream_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
