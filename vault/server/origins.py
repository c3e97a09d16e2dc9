"""Decides which requests of web pages are accepted: only recordings, from an origin that the tenant lists.

A browser states the page of a request by `Sec-Fetch-Site` (W3C Fetch Metadata) and `Origin` (RFC 6454). Other programs
send neither header and need neither.

A preflight carries no token, and any program can send one. If the tenant in the address decided about it, anybody could
learn which tenants exist and which origins they list. So before the token is known, an origin is accepted if any tenant
lists it, whatever the address says. Once the token is known, its own tenant must list the origin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from vault.errors import Forbidden, UnsupportedMedia
from vault.server.context import CONFIG, INGEST, VAULT, recorder

_GUARDED: Final = ("/v1/", "/s3/")
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN: Final = frozenset({"same-origin", "none"})
_SITE: Final = web.RequestKey("site", str)
_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
EXPOSED: Final = (
    *("Location", "Retry-After", "Request-Id", "Recording-Id", "Recording-State", "Recording-Kept-Until"),
    *("Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm", "Accept-Patch"),
    *("Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Upload-Expires", "Upload-Complete", "Upload-Limit"),
    "Upload-Draft-Interop-Version",
)
"""Headers of an answer that a page may read, besides those of the Fetch standard's safelist."""
_UNLISTED: Final = "a page of another site sent this request, and the tenant does not list its origin"
_LIST_IT: Final = "callvault tenants set TENANT --origin https://SITE"


@web.middleware
async def sites(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse requests of other sites' pages, except recordings; outside ingest, refuse bodies that are not JSON too."""
    if not request.path.startswith(_GUARDED):
        return await handler(request)
    foreign = _foreign(request)
    if request.path.startswith(INGEST):
        if foreign and (answer := await _from_page(request)) is not None:
            return answer
    elif foreign and (request.path.startswith("/s3/") or request.method not in _SAFE):
        raise Forbidden(
            "a page of another site sent this request", hint="programs send neither Origin nor Sec-Fetch-Site"
        )
    elif request.path.startswith("/v1/") and request.method not in _SAFE:
        _require_json(request)
    return await handler(request)


async def share_with_site(request: web.Request, response: web.StreamResponse) -> None:
    """Let the page that sent the request read its answer, if the tenant lists the page's origin."""
    site = request.get(_SITE)
    if site is not None:
        response.headers["Access-Control-Allow-Origin"] = site
        response.headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED)
        response.headers.add("Vary", "Origin")


def _foreign(request: web.Request) -> bool:
    fetched = request.headers.get("Sec-Fetch-Site")
    if fetched is not None:
        return fetched not in _OWN
    origin = request.headers.get("Origin")
    # A WebSocket library outside a browser may send the name of the server itself, with any scheme and port.
    return origin is not None and _host(origin) not in _own_hosts(request)


def _own_hosts(request: web.Request) -> set[str | None]:
    public = request.app[CONFIG].server.public_url
    return {_host(f"//{request.host}")} | ({_host(public)} if public else set())


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return None


async def _from_page(request: web.Request) -> web.StreamResponse | None:
    """Return the answer to a page's preflight, or None for a page's request that is permitted; Forbidden."""
    tenants = request.app[VAULT].tenants
    origin = request.headers.get("Origin", "")
    if not origin or origin not in await tenants.listed_origins():
        raise Forbidden(_UNLISTED, hint=_LIST_IT)
    request[_SITE] = origin
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        answer = web.Response(status=204)
        answer.headers["Access-Control-Allow-Methods"] = _METHODS
        # An upload may carry any header that a page can set, because the vault ignores unknown ones.
        answer.headers["Access-Control-Allow-Headers"] = request.headers.get("Access-Control-Request-Headers", "")
        answer.headers["Access-Control-Max-Age"] = "600"
        return answer
    if request.headers.get("Authorization", "").partition(" ")[0].lower() != "bearer":
        raise Forbidden("a browser records with a bearer token alone", hint="send Authorization: Bearer TOKEN")
    # Another tenant's address is refused later, where the token is checked, like a request without a page.
    own = (await recorder(request)).tenant
    if own is None or origin not in await tenants.origins(own):
        del request[_SITE]
        raise Forbidden(_UNLISTED, hint=_LIST_IT)
    return None


def _require_json(request: web.Request) -> None:
    """Raise UnsupportedMedia for a body that is not declared as JSON: a form on any page can send the other types."""
    if request.can_read_body and request.content_type != "application/json":
        raise UnsupportedMedia(
            "the body must be application/json", hint="with curl: --json, or -H 'Content-Type: application/json'"
        )
