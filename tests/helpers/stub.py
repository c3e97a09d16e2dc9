"""A server that answers what a test tells it to, on its own thread, because commands bring their own event loop."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    claimed_bytes: int | None = None
    """Promise this length, send `body`, then cut the connection."""


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


def answer(document: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document).encode(), {"Content-Type": "application/json"})


def problem(code: str, status: int, detail: str, **more: str | int) -> Reply:
    document = {"type": f"urn:callvault:problem:{code}", "title": code, "status": status, "detail": detail, **more}
    return Reply(status, json.dumps(document).encode(), {"Content-Type": "application/problem+json"})


class StubServer:
    def __init__(self) -> None:
        self.replies: dict[tuple[str, str], list[Reply]] = {}
        self.asked: list[Asked] = []
        self.url = ""

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Give `replies` in turn, the last of them for ever."""
        self.replies[method, path] = list(replies)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.asked.append(Asked(request.method, request.path, dict(request.query), dict(request.headers), body))
        queue = self.replies.get((request.method, request.path))
        if not queue:
            queue = [problem("not_found", 404, "there is nothing at this address")]
        reply = queue.pop(0) if len(queue) > 1 else queue[0]
        if reply.claimed_bytes is None:
            return web.Response(status=reply.status, body=reply.body, headers=reply.headers)
        response = web.StreamResponse(headers={**reply.headers, "Content-Length": str(reply.claimed_bytes)})
        await response.prepare(request)
        await response.write(reply.body)
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()
        return response


@contextmanager
def running_stub(tls: ssl.SSLContext | None = None) -> Iterator[StubServer]:
    stub = StubServer()
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", stub.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        stub.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
