"""Recordings over HTTP: list, show, why, audio."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial

from aiohttp import web

from vault.access.permissions import Act, permits
from vault.errors import Refused, VaultError
from vault.ids import RecordingId, TenantId
from vault.media.heads import playable_media
from vault.media.ranges import parse_range
from vault.media.wav import View, has_wav_head, playable, verbatim
from vault.model import Principal, Recording, RecordingState
from vault.ports.recordings import RecordingQuery
from vault.retention.decide import in_force
from vault.server import views
from vault.server.api.names import named
from vault.server.bodies import ListedState, ListRecordings, PlayAudio, SearchRecordings
from vault.server.context import (
    VAULT,
    body,
    checked_id,
    checked_tenant,
    possible_id,
    principal,
    query,
    query_id,
    whole_id,
)
from vault.services.playback.playback import Playable
from vault.services.recordings.reading import look_through
from vault.services.recordings.search import Wanted
from vault.services.vault import Vault

_WINDOW_BYTES = 1 << 17
"""Stored bytes that are opened ahead of a reader: PCM16 of G.711 is twice as much."""
_SENT_BYTES = 1 << 16

logger = logging.getLogger(__name__)


async def permitted(request: web.Request, act: Act) -> Recording:
    """Return the recording in the path once the caller may do `act` with it."""
    vault = request.app[VAULT]
    actor = await principal(request)
    wanted = request.match_info["recording"]
    await vault.access.authorise(actor, act, target=possible_id(wanted, "rec"))
    identifier = RecordingId(checked_id(await whole_id(request, actor, wanted, "rec"), "rec", "recording"))
    return await vault.access.own(actor, act, vault.catalog.recording, identifier)


def scope(wanted: str | None, own: TenantId | None) -> TenantId | None:
    """Return the tenant a query is confined to: the token's own, else the one asked for."""
    return own if own is not None else (checked_tenant(wanted) if wanted else None)


async def listing(request: web.Request) -> web.Response:
    """GET /v1/recordings."""
    await request.app[VAULT].access.authorise(await principal(request), Act.RECORDING_LIST)
    return await _page(request, query(request, ListRecordings))


async def search(request: web.Request) -> web.Response:
    """POST /v1/recordings/search: the same, without a number in an address that proxies and browsers remember."""
    await request.app[VAULT].access.authorise(await principal(request), Act.RECORDING_LIST)
    return await _page(request, await body(request, SearchRecordings))


async def _page(request: web.Request, wanted: SearchRecordings) -> web.Response:
    vault = request.app[VAULT]
    actor = await principal(request)
    asked = checked_tenant(wanted.tenant) if wanted.tenant else None
    await vault.access.authorise(actor, Act.RECORDING_LIST, tenant=asked)
    before = query_id(wanted.before, "rec", "before")
    chosen = RecordingQuery(
        tenant=scope(wanted.tenant, actor.tenant),
        state=None if wanted.state in (None, ListedState.LIVE) else RecordingState(wanted.state.value),
        started_from=wanted.started_from,
        started_to=wanted.started_to,
        held=wanted.held,
        ahead=wanted.ahead,
        min_bytes=wanted.min_bytes,
        max_bytes=wanted.max_bytes,
        min_duration=wanted.min_duration,
        max_duration=wanted.max_duration,
        expires_from=wanted.expires_from,
        expires_to=wanted.expires_to,
        before=RecordingId(before) if before else None,
        limit=wanted.limit,
    )
    live = wanted.state is ListedState.LIVE
    sought = Wanted(
        call_key=wanted.call_key,
        caller=wanted.caller,
        called=wanted.called,
        agent=wanted.agent,
        direction=wanted.direction,
        tag=wanted.tag,
    )
    if sought.fields:
        await vault.access.authorise(actor, Act.FACTS_READ, tenant=asked)
        purpose = vault.playback.check_purpose(request.headers.get("Purpose"))
        page = await vault.recordings.search(chosen, sought, purpose=purpose, actor=actor, live=live)
    else:
        page = await vault.recordings.list(chosen, actor=actor, live=live)
    more = page[-1].recording.id if len(page) == wanted.limit else None
    return web.json_response({"recordings": [views.recording(view) for view in page], "before": more})


async def show(request: web.Request) -> web.Response:
    """GET /v1/recordings/{id}."""
    row = await permitted(request, Act.RECORDING_SHOW)
    actor = await principal(request)
    view = await request.app[VAULT].recordings.show(row, actor=actor, facts=permits(actor.role, Act.FACTS_READ))
    return web.json_response(views.recording(view))


async def why(request: web.Request) -> web.Response:
    """GET /v1/recordings/{id}/why."""
    row = await permitted(request, Act.RECORDING_WHY)
    explained = await request.app[VAULT].recordings.why(row, actor=await principal(request))
    return web.json_response(await named(request.app[VAULT], dict(explained)))


async def readable(request: web.Request) -> tuple[Recording, str]:
    """Return the recording in the path and the purpose once the caller may hear it, also where a hold protects it."""
    vault = request.app[VAULT]
    row = await permitted(request, Act.PLAY)
    actor = await principal(request)
    purpose = vault.playback.check_purpose(request.headers.get("Purpose"))
    if any(in_force(hold) for hold in await vault.catalog.holds_on(row.id)):
        await vault.access.authorise(actor, Act.PLAY_HELD, tenant=row.tenant, target=row.id)
    return row, purpose


@contextmanager
def playing(request: web.Request, actor: Principal) -> Iterator[None]:
    """Have one of the token's playbacks inside the context; revoking the token cuts the answer off."""
    vault = request.app[VAULT]

    def cut() -> None:
        if request.transport is not None:
            request.transport.abort()

    with vault.playback.slots.taken(actor.token_id):
        leave = vault.access.underway.enter(actor.token_id, cut)
        try:
            yield
        finally:
            leave()


async def audio(request: web.Request) -> web.StreamResponse:
    """GET /v1/recordings/{id}/audio: verified before the first byte leaves; cut off if a later byte fails."""
    vault = request.app[VAULT]
    row, purpose = await readable(request)
    wanted = query(request, PlayAudio)
    actor = await principal(request)
    with playing(request, actor):
        opened = await vault.playback.open(row.id, actor=actor, purpose=purpose)
        view = await _view(vault, opened, raw=wanted.format == "raw")
        return await send(
            request,
            opened,
            partial(_pieces, vault, opened, view),
            length=view.total_length,
            content_type=view.content_type,
            sha256=opened.sha256 if view == verbatim(row.media, opened.stored) else None,
        )


async def send(
    request: web.Request,
    readable: Playable,
    pieces_of: Callable[[int, int], AsyncIterator[bytes]],
    *,
    length: int,
    content_type: str,
    sha256: str | None = None,
) -> web.StreamResponse:
    """Answer with `length` verified bytes, or the range that was asked for; `pieces_of` reads one.

    `sha256` is that of all of them, where it is known.
    """
    # A range is a matter of GET (RFC 9110 section 14.2), and no validator was given that If-Range could name.
    ranged = request.method == "GET" and "If-Range" not in request.headers
    span = parse_range(request.headers.get("Range") if ranged else None, length)
    start, end = span if span is not None else (0, length)
    response = web.StreamResponse(
        status=206 if span is not None else 200,
        headers={
            "Content-Type": content_type,
            "Content-Length": str(end - start),
            "Accept-Ranges": "bytes",
            "Cache-Control": "no-store",
            "Recording-State": "live" if readable.live else readable.recording.state.value,
        },
    )
    if sha256 is not None:
        response.headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"  # RFC 9530
    if span is not None:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{length}"
    pieces = pieces_of(start, end)
    # The first window is opened before the status line: tampering there answers with a problem, never with audio.
    first = await anext(pieces, b"")
    await response.prepare(request)
    try:
        if request.method != "HEAD":
            await _write(response, first)
            async for piece in pieces:
                await _write(response, piece)
    except Exception as error:
        detail = error.message if isinstance(error, VaultError) else type(error).__name__
        gone = request.transport is None or request.transport.is_closing()
        if not (gone and isinstance(error, ConnectionError)):  # players hang up whenever they seek
            logger.log(
                logging.INFO if isinstance(error, Refused) else logging.ERROR,
                "playback stopped",
                exc_info=error,
                extra={"fields": {"recording": readable.recording.id, "detail": detail}},
            )
        # Headers are out: an aborted connection is the only honest answer left. A problem document would arrive as
        # the next bytes of the audio.
        if request.transport is not None:
            request.transport.abort()
        raise
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, piece: bytes) -> None:
    """Send a piece; most of it waits here, not in the connection, for a reader that is slow."""
    for start in range(0, len(piece), _SENT_BYTES):
        await response.write(piece[start : start + _SENT_BYTES])


async def _view(vault: Vault, readable: Playable, *, raw: bool) -> View:
    media = readable.recording.media
    if raw:
        return verbatim(media, readable.length)
    media = playable_media(media, readable.recording.content)
    head = None
    if has_wav_head(media):
        head = await look_through(readable.length, partial(vault.playback.read, readable))
    return playable(media, readable.length, head=head)


async def _pieces(vault: Vault, readable: Playable, view: View, start: int, end: int) -> AsyncIterator[bytes]:
    plan = view.plan(start, end)
    convert = plan.converter()
    header = plan.header
    async for stored in vault.playback.read(readable, plan.first, plan.last, window=_WINDOW_BYTES):
        yield header + convert(stored)
        header = b""
    if header:
        yield header
