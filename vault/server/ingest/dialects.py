"""Every way in: the routes on which recorders write, and their operations as data."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from vault.protocol.live.http_signatures import Nonces
from vault.server.api import call_notes as callnotes
from vault.server.context import asked_later
from vault.server.ingest import audiohook, rtpengine, s3, tus, websocket
from vault.server.ingest import http as ingest

OPERATIONS: Final = (
    *websocket.OPERATIONS,
    *audiohook.OPERATIONS,
    *rtpengine.OPERATIONS,
    *callnotes.OPERATIONS,
    *s3.OPERATIONS,
    *tus.OPERATIONS,
    *ingest.OPERATIONS,
)


def add_routes(app: web.Application) -> None:
    """Route every dialect; call keys come last, because the other dialects' names are none."""
    app[audiohook.NONCES] = Nonces()
    router = app.router
    router.add_get("/v1/ingest/{tenant}/ws", websocket.connect)
    router.add_get("/v1/ingest/{tenant}/audiohook", audiohook.connect)
    router.add_get("/v1/ingest/{tenant}/rtpengine", rtpengine.notify, expect_handler=asked_later, allow_head=False)
    router.add_post("/v1/ingest/{tenant}/rtpengine", rtpengine.notify, expect_handler=asked_later)
    callnotes.add_routes(app)
    tus.add_routes(app)
    router.add_get("/v1/ingest/{tenant}", ingest.terms)
    for method in ("PUT", "POST"):
        router.add_route(method, "/v1/ingest/{tenant}/{call_key}", ingest.upload, expect_handler=asked_later)
    router.add_route("HEAD", "/v1/ingest/{tenant}/{call_key}", ingest.head)
