"""Every operation of the HTTP API, in the order in which the router tries them, and their OpenAPI document."""

from __future__ import annotations

import functools
import json
from typing import Final

from aiohttp import web

from vault.server.api import (
    audit,
    call_notes,
    certificates,
    erasures,
    flags,
    health,
    holds,
    keys,
    policies,
    recordings,
    sweeps,
    tenants,
    tokens,
)
from vault.server.ingest import audiohook, http, resumable, rtpengine, s3, websocket
from vault.server.operation import Answer, Operations, build
from vault.threads import in_thread

_SERVER: Final = Operations("server")


@_SERVER.raw(
    "GET /v1/openapi.json", None, {200: Answer(text="OpenAPI 3.1.", content={"application/json": {"type": "object"}})}
)
async def openapi(_: web.Request) -> web.Response:
    """This document."""
    return web.Response(body=await in_thread(_document), content_type="application/json", charset="utf-8")


@functools.cache
def _document() -> bytes:
    """Return the document. Building it takes a quarter of a second, so it is built once and off the event loop."""
    return json.dumps(build(OPERATIONS), ensure_ascii=False, separators=(",", ":")).encode()


OPERATIONS: Final = (
    # The other dialects come before `http`, which would read their names as call keys. S3 comes last, because at the
    # root it takes every address that is left.
    *(
        *websocket.OPERATIONS,
        *audiohook.OPERATIONS,
        *rtpengine.OPERATIONS,
        *call_notes.OPERATIONS,
        *resumable.OPERATIONS,
    ),
    *(*http.OPERATIONS, *flags.OPERATIONS, *recordings.OPERATIONS, *holds.OPERATIONS, *erasures.OPERATIONS),
    *(*certificates.OPERATIONS, *tenants.OPERATIONS, *policies.OPERATIONS, *tokens.OPERATIONS, *sweeps.OPERATIONS),
    *(*keys.OPERATIONS, *audit.OPERATIONS, *_SERVER, *health.OPERATIONS, *s3.OPERATIONS),
)
