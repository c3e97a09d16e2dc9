"""HTTP streams: PUT or POST a recording while the call runs, HEAD to ask how much is durable."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from vault.errors import Conflict, Invalid, NotFound, OffsetMismatch, TooLarge, UploadStalled, VaultError
from vault.format.notes import Note, dropped_bytes, kept_of
from vault.ids import TenantId, parse_call_key
from vault.media.descriptor import parse_content_type
from vault.model import CallFacts, Recording, RecordingState
from vault.protocol.numbers import normalised
from vault.protocol.permissions import Act
from vault.server.context import CONFIG, VAULT, path_tenant, principal
from vault.server.problems import problem
from vault.services.sessions import CallStart, IngestSession
from vault.services.vault import Vault
from vault.telemetry import request_id

_DIALECT: Final = "http"
_PIECE_BYTES: Final = 1 << 18
_MAX_TAGS: Final = 20
_MAX_FACT: Final = 200
_MAX_OFFSET_DIGITS: Final = 16
_SEALED: Final = (RecordingState.SEALED, RecordingState.TRUNCATED)
_UNSPOKEN = "a fact header is too long or not text"


async def expect(request: web.Request) -> web.Response | None:
    """Answer `Expect: 100-continue` only after the token was checked, so a refused recorder sends no audio."""
    try:
        await _authorised(request)
    except VaultError as error:
        return problem(error, request_id=request_id.get(), close=True)
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None


async def _authorised(request: web.Request) -> tuple[TenantId, str]:
    vault = request.app[VAULT]
    actor = await principal(request)
    tenant = path_tenant(request)
    await vault.access.authorise(actor, Act.INGEST, tenant=tenant, target=tenant)
    return tenant, parse_call_key(request.match_info["call_key"])


async def head(request: web.Request) -> web.Response:
    """Say how many bytes are durable."""
    tenant, call_key = await _authorised(request)
    vault = request.app[VAULT]
    session = vault.ingest.live_call(tenant, call_key)
    if session is not None:
        return web.Response(headers=_progress(session.recording, await vault.notes.acknowledge(session), "open"))
    row = await vault.search.call(tenant, call_key)
    if row is None:
        raise NotFound("nothing was recorded under this call key")
    if row.state is RecordingState.OPEN:
        vault.ingest.require_here(row)
    if row.state in _SEALED:
        known = await _finished(vault, row)
        return web.Response(headers=_progress(row, known.received, row.state.value))
    return web.Response(headers=_progress(row, row.stored_bytes, row.state.value))


def _progress(row: Recording, durable: int, state: str) -> dict[str, str]:
    return {
        "Upload-Offset": str(durable),
        "Recording-Id": row.id,
        "Recording-State": state,
        "Cache-Control": "no-store",
    }


async def upload(request: web.Request) -> web.StreamResponse:
    """Stream a recording in; 201 once every byte is durable, 200 for a replay of a finished one."""
    tenant, call_key = await _authorised(request)
    limit = request.app[CONFIG].server.max_recording_bytes
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge(f"the recording exceeds {limit} bytes")
    pieces = _Pieces(request)
    try:
        return await _upload(request, tenant, call_key, pieces)
    finally:
        pieces.close()


async def _upload(request: web.Request, tenant: TenantId, call_key: str, pieces: _Pieces) -> web.StreamResponse:
    vault = request.app[VAULT]
    offset = _offset(request)
    session = vault.ingest.live_call(tenant, call_key)
    if session is not None and session.ended is None:
        await _continue(vault, session, pieces, offset)
        return await _receive(vault, session, pieces)
    first = await pieces.first()
    if not first and not offset:
        raise Invalid("the upload has no audio", hint="send the recording as the request body")
    if session is not None:
        return await _replay(await _ended(vault, session), pieces, first, offset)
    if not first and (row := await vault.search.call(tenant, call_key)) is not None:
        return await _replay(await _finished(vault, row), pieces, first, offset)
    session, row = await _begin(request, tenant, call_key, first, offset)
    if row is not None:
        return await _replay(await _finished(vault, row), pieces, first, offset)
    assert session is not None
    pieces.push_back(first)
    return await _receive(vault, session, pieces)


async def _begin(
    request: web.Request, tenant: TenantId, call_key: str, first: bytes, offset: int | None
) -> tuple[IngestSession | None, Recording | None]:
    """Start a recording; or return the finished one that already has this call key."""
    vault = request.app[VAULT]
    if offset:
        existing = await vault.search.call(tenant, call_key)
        if existing is None:
            raise OffsetMismatch("nothing is durable under this call key", hint="start at byte 0", offset=0)
        if existing.state is RecordingState.OPEN:
            vault.ingest.require_here(existing)
    call = CallStart(
        tenant=tenant,
        call_key=call_key,
        media=parse_content_type(request.headers.get("Content-Type"), first),
        facts=_facts(request),
        started_at=_started(request),
        retention=await vault.tenants.retention(tenant),
    )
    try:
        session = await vault.ingest.start(call, actor=await principal(request))
    except Conflict:
        existing = await vault.search.call(tenant, call_key)
        if existing is None:
            raise
        if existing.state is RecordingState.OPEN:
            vault.ingest.require_here(existing)
            raise
        return None, existing
    return session, None


async def _continue(vault: Vault, session: IngestSession, pieces: _Pieces, offset: int | None) -> None:
    """Attach to an interrupted recording: at its durable end, or replaying it from byte 0."""
    durable = await vault.ingest.attach(session, offset=offset)
    if offset is not None or durable == 0:
        return
    try:
        await _skip_prefix(session, pieces, durable)
    except BaseException:
        vault.ingest.detach(session)
        raise


async def _skip_prefix(session: IngestSession, pieces: _Pieces, durable: int) -> None:
    """Swallow a resent prefix, proving byte for byte (by hash) that it is what is durable already."""
    resent = hashlib.sha256()
    missing = durable
    async for piece in pieces:
        take = piece[:missing]
        # What a pause dropped was never hashed.
        resent.update(session.keeping.kept_of(take, durable - missing, session.durable))
        missing -= len(take)
        if missing == 0:
            pieces.push_back(piece[len(take) :])
            break
    assert session.digest is not None
    if missing or resent.digest() != session.digest.digest():
        raise OffsetMismatch(
            f"{durable} bytes of this call are durable and the upload does not repeat them",
            hint=f"send Upload-Offset: {durable} and continue there",
            offset=durable,
        )


async def _receive(vault: Vault, session: IngestSession, pieces: _Pieces) -> web.StreamResponse:
    started = session.durable
    counter = vault.metrics.ingest_bytes.labels(_DIALECT)
    ingest = vault.ingest
    try:
        while piece := await pieces.next():
            await ingest.write(session, piece)
        await ingest.finish(session)
    except BaseException:
        # The rest of the call may still come: what is durable stays, and the grace period begins.
        ingest.detach(session)
        raise
    finally:
        counter.inc(max(session.durable - started, 0))
    ingest.detach(session)
    return await _created(vault, session, pieces.finish_wait)


async def _created(vault: Vault, session: IngestSession, wait_seconds: float) -> web.Response:
    assert session.digest is not None
    digest = session.digest.hexdigest()
    if not vault.storer.store_down:
        try:
            async with asyncio.timeout(wait_seconds):
                await session.done.wait()
        except TimeoutError:
            pass  # every byte and the end are in the journal: the object store only has to catch up
    state = RecordingState.SEALED if session.done.is_set() else RecordingState.OPEN
    return _receipt(session.recording, session.durable, digest, state.value, status=201)


def _receipt(row: Recording, size: int, sha256: str | None, state: str, *, status: int) -> web.Response:
    body: dict[str, Any] = {"recording_id": row.id, "bytes": size, "sha256": sha256, "state": state}
    return web.json_response(body, status=status, headers={"Location": f"/v1/recordings/{row.id}"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finished:
    """A recording that has ended, stored or not, as a repeated upload is measured against."""

    row: Recording
    size: int
    received: int
    """`size` and what pauses dropped: the bytes that the recorder sent."""
    sha256: str | None
    state: str
    notes: Sequence[Note]


async def _ended(vault: Vault, session: IngestSession) -> _Finished:
    """Describe a recording whose end is durable and which the object store does not have yet."""
    if session.digest is None:
        await vault.storer.rebuild_digest(session)
    assert session.digest is not None
    return _Finished(
        row=session.recording,
        size=session.durable,
        received=session.received,
        sha256=session.digest.hexdigest(),
        state=RecordingState.OPEN.value,
        notes=session.keeping.settled(session.durable),
    )


async def _finished(vault: Vault, row: Recording) -> _Finished:
    if row.state is RecordingState.OPEN:
        vault.ingest.require_here(row)
        raise Conflict("another upload for this call key is under way")
    if row.state not in _SEALED:
        raise Conflict("this call key belongs to a recording that was shredded", hint="call keys are not used twice")
    found = await vault.playback.finished(row)
    return _Finished(
        row=row,
        size=row.stored_bytes,
        received=row.stored_bytes + dropped_bytes(found.notes, row.stored_bytes),
        sha256=found.sha256,
        state=row.state.value,
        notes=found.notes,
    )


async def _replay(known: _Finished, pieces: _Pieces, first: bytes, offset: int | None) -> web.Response:
    """A recording that has ended is sent again: 200 if it is the same audio, 409 if not.

    At an offset only the end itself can be repeated: a recorder whose answer was lost sends what it thinks is missing.
    """
    same = offset == known.received and not first
    if not offset:
        digest = hashlib.sha256(kept_of(first, 0, known.notes))
        at = len(first)
        async for piece in pieces:
            digest.update(kept_of(piece, at, known.notes))
            at += len(piece)
        same = digest.hexdigest() == known.sha256
    if not same:
        raise Conflict("this call key belongs to another, finished recording", hint="call keys are not used twice")
    return _receipt(known.row, known.size, known.sha256, known.state, status=200)


class _Pieces:
    """The request body as pieces of at most 256 KiB; ends the request when nothing arrives for too long."""

    def __init__(self, request: web.Request) -> None:
        settings = request.app[CONFIG].server
        self.finish_wait = settings.finish_wait.total_seconds()
        self._content = request.content
        self._idle = settings.idle_timeout.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._waiting_since = math.inf
        """When the recorder began to be waited for; never, while its audio is being taken."""
        self._watch = self._loop.call_later(self._idle, self._look)
        self._held: bytes = b""
        """Taken from the connection and not handed out yet."""

    def push_back(self, piece: bytes) -> None:
        """Hand out `piece` again before all else."""
        self._held = piece + self._held

    async def first(self) -> bytes:
        """Return the first bytes, enough to recognise a container by, or b"" for an empty body."""
        piece = await self._next()
        while piece and len(piece) < 16 and (more := await self._next()):  # noqa: PLR2004  # the longest magic
            piece += more
        return piece

    def _look(self) -> None:
        """End the upload if nothing came for the idle time. One timer a call: arming one for each piece costs more."""
        quiet = max(self._loop.time() - self._waiting_since, 0.0)
        if quiet < self._idle:
            self._watch = self._loop.call_later(self._idle - quiet, self._look)
        else:
            self._content.set_exception(TimeoutError())

    def close(self) -> None:
        """Stop watching the connection."""
        self._watch.cancel()

    async def _next(self) -> bytes:
        self._waiting_since = self._loop.time()
        try:
            return await self._content.readany()
        except ConnectionError:
            if not self._content.is_eof():
                raise
            # The whole body had arrived: a recorder that hangs up without waiting for its answer loses nothing. aiohttp
            # would hide those bytes behind the end of the connection, and there is no public way to take that back.
            self._content._exception = None  # noqa: SLF001
            return self._content.read_nowait()
        except TimeoutError as error:
            raise UploadStalled(
                "no audio arrived for too long, so the upload was closed; what was received is durable",
                hint="ask with HEAD where to continue, within the grace period",
            ) from error
        finally:
            self._waiting_since = math.inf

    async def next(self) -> bytes:
        """Return the next piece, or b"" at the end of the body."""
        piece = self._held or await self._next()
        if len(piece) <= _PIECE_BYTES:
            self._held = b""
            return piece
        self._held = piece[_PIECE_BYTES:]
        return piece[:_PIECE_BYTES]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.next():
            yield piece


def _offset(request: web.Request) -> int | None:
    value = request.headers.get("Upload-Offset")
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > _MAX_OFFSET_DIGITS:
        raise Invalid("Upload-Offset is not a byte count")
    return int(value)


def _started(request: web.Request) -> datetime | None:
    value = request.headers.get("Call-Started")
    if value is None:
        return None
    try:
        started = datetime.fromisoformat(value)
        if started.tzinfo is None:
            raise Invalid("Call-Started has no time zone", hint="for example 2026-01-31T09:30:00Z")
        return started.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid("Call-Started is not an RFC 3339 instant", hint="for example 2026-01-31T09:30:00Z") from error


def _facts(request: web.Request) -> CallFacts:
    tags = tuple(tag.strip() for tag in _fact(request, "Call-Tags", "").split(",") if tag.strip())
    if len(tags) > _MAX_TAGS:
        raise Invalid(f"a call has at most {_MAX_TAGS} tags")
    direction = _fact(request, "Call-Direction", "") or None
    if direction not in (None, "inbound", "outbound"):
        raise Invalid("Call-Direction is inbound or outbound")
    return CallFacts(
        caller=normalised(_fact(request, "Call-From", "")),
        called=normalised(_fact(request, "Call-To", "")),
        direction=direction,
        tags=tags,
    )


def _fact(request: web.Request, name: str, default: str) -> str:
    value = request.headers.get(name, default).strip()
    if len(value) > _MAX_FACT or not value.isprintable():
        raise Invalid(_UNSPOKEN)
    return value
