"""A safeguarding lead's webhook: a real HTTP server that answers as a test tells it to, and checks what it is sent."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_public_key


@dataclass(slots=True)
class Receiver:
    """`answers` in turn, then 204 for ever; an answer of None never comes."""

    url: str = ""
    answers: list[int | None] = field(default_factory=list)
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        self.heard.append((dict(request.headers), await request.read()))
        self.news.set()
        answer = self.answers.pop(0) if self.answers else 204
        if answer is None:
            await asyncio.sleep(60)
        return web.Response(status=answer, headers={"Location": f"{self.url}/elsewhere"})

    async def times(self, count: int, *, seconds: float = 20) -> None:
        """Return once it was asked so often."""
        async with asyncio.timeout(seconds):
            while len(self.heard) < count:
                self.news.clear()
                await self.news.wait()

    @property
    def messages(self) -> list[dict]:
        return [json.loads(body) for _, body in self.heard]

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.heard]


@asynccontextmanager
async def receiving(port: int = 0, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    receiver.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}/s3cret-path"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def verified(headers: dict[str, str], body: bytes, issuer_key: bytes, *, now: float | None = None) -> bool:
    """Check a message as Standard Webhooks 1.0.0 asks a receiver to, with nothing of the vault's own code."""
    named = {name.lower(): value for name, value in headers.items()}
    if abs((time.time() if now is None else now) - int(named["webhook-timestamp"])) > 300:
        return False
    signed = f"{named['webhook-id']}.{named['webhook-timestamp']}.".encode() + body
    for each in named["webhook-signature"].split(" "):
        version, _, signature = each.partition(",")
        if version == "v1a":
            try:
                load_pem_public_key(issuer_key).verify(base64.b64decode(signature, validate=True), signed)
            except (InvalidSignature, ValueError):
                continue
            return True
    return False
