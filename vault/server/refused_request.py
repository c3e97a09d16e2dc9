"""Collects why an HTTP request is refused, and passes that to the log of refusals once the status is known."""

from __future__ import annotations

import logging
from typing import Final

from aiohttp import web

from vault.errors import VaultError
from vault.server.context import ACTOR, CLAIMED, INGEST
from vault.server.refusal_log import REFUSALS, said_of

_LOOKS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SERVER_ERROR: Final = 500

DIALECT = web.RequestKey("dialect", str)
"""The dialect of a request, once its handler knows it better than the path shows."""
_FAILURE = web.RequestKey("failure", VaultError)


def failing(request: web.Request, failure: VaultError, *, dialect: str | None = None) -> None:
    """Remember why the request is about to be refused; `tell` logs it once the status is known."""
    request[_FAILURE] = failure
    if dialect is not None:
        request[DIALECT] = dialect


def tell(request: web.Request, *, status: int, failure: VaultError | None = None, **facts: object) -> None:
    """Log a refused request. A request without a failure is not logged, nor is one whose client broke off."""
    failure = failure or request.get(_FAILURE)
    if failure is None and not facts:
        return
    if request.transport is None or request.transport.is_closing():
        return  # the other end broke off
    actor = request.get(ACTOR)
    ingest = request.path.startswith(INGEST) or request.get(DIALECT) is not None
    loud = status >= _SERVER_ERROR or "close" in facts or (ingest and request.method not in _LOOKS)
    request.app[REFUSALS].note(
        status=status,
        problem=f"http_{status}" if failure is None else failure.code,
        dialect=dialect_of(request),
        tenant=None if actor is None else actor.tenant,
        token=request.get(CLAIMED) if actor is None else actor.token_id,
        level=logging.WARNING if loud else logging.INFO,
        facts=facts if failure is None else {**said_of(failure), **facts},
    )


def dialect_of(request: web.Request) -> str:
    """Return the dialect of the request, as far as it is known."""
    known = request.get(DIALECT)
    if known is not None or not request.path.startswith(INGEST):
        return known or "api"
    match request.path.removeprefix(INGEST).split("/"):
        case [_, "ws"]:
            return "websocket"
        case [_, "audiohook" | "rtpengine" as name]:
            return name
        case [_, _, "siprec"]:
            return "siprec"
        case [_, "tus", *_]:
            return "tus" if "Tus-Resumable" in request.headers else "resumable"
        case _:
            return "http"
