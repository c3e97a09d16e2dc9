"""Writes one HTTP upload into its recording: begins, continues, repeats and ends it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from aiohttp import web
from typing_extensions import TypedDict

from vault.errors import Conflict, Invalid, OffsetMismatch, Unavailable
from vault.format.notes import Note, kept_before, kept_of
from vault.ids import TenantId, call_keys, call_number
from vault.media.heads import TAIL_BYTES, says_end
from vault.model import CallFacts, Media, Principal, Recording, RecordingState
from vault.protocol.uploads.http_put import Placing
from vault.server.context import reply
from vault.server.ingest.body import Pieces
from vault.server.schemas import Count, FormerRef, RecordingRef, Sha256
from vault.services.ingest.open_rows import Joiner
from vault.services.ingest.sessions import CallStart, IngestSession
from vault.services.uploads.resumable import Writer
from vault.services.vault import Vault

_PUT_AWAY_SECONDS: Final = 5.0
"""How long an upload waits until an earlier attempt without a byte has freed its call key."""

logger = logging.getLogger(__name__)


class Receipt(TypedDict):
    """The durable part of a recording."""

    id: RecordingRef
    recording_id: FormerRef
    bytes: Count
    sha256: Sha256 | None
    """The SHA-256 of the stored plaintext bytes."""
    state: RecordingState


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What a request states about its body.

    `media` returns the descriptor from the declaration and the first bytes; `declared` is the descriptor if the
    declaration is enough.
    """

    tenant: TenantId
    call_key: str = field(repr=False)
    actor: Principal
    media: Callable[[bytes], Media]
    declared: Media | None
    facts: CallFacts = field(repr=False)
    started_at: datetime | None
    placing: Placing
    dialect: str
    finish_wait: float
    """How many seconds an answer waits for the object store."""
    grace: timedelta | None = None

    @property
    def joiner(self) -> Joiner:
        """What it states to join a recording with its call key."""
        return Joiner(actor=self.actor, facts=self.facts, started_at=self.started_at, media=self.declared)


async def preflight(vault: Vault, upload: Upload) -> None:
    """Raise an error that `take` would raise in any case, before the client sends the body."""
    session = vault.ingest.live_call(upload.tenant, upload.call_key)
    if session is None or not await vault.ingest.joining.may(upload.joiner, session):
        vault.ingest.admit(upload.tenant)
        await vault.tenants.retention(upload.tenant)
    elif session.ended is None and not upload.placing.resends and session.durable == session.appended:
        await vault.notes.acknowledge(session)
        session.require_offset(upload.placing.offset)


async def take(vault: Vault, upload: Upload, pieces: Pieces, writer: Writer) -> web.Response:
    """Record the body: 201 once all of it and the end are durable, 202 for a piece, 200 for a repetition.

    If the name belongs to a recording that the call may not join, the next name is used: `~2` and so on.
    """
    key, first = call_number(upload.call_key)
    for name in call_keys(key, first=first):
        answer = await _take(vault, replace(upload, call_key=name), pieces, writer)
        if answer is not None:
            return answer
    raise Conflict("too many recordings have this call key", hint="give each call a key of its own")


async def _take(vault: Vault, upload: Upload, pieces: Pieces, writer: Writer) -> web.Response | None:
    """Record the body under this name; None, with none of the body used, if the name is another recorder's."""
    placing = upload.placing
    session = await _session(vault, upload)
    call = None if session is None else await _joiner(upload, session, pieces)
    if session is not None and call is not None and not await vault.ingest.joining.may(call, session):
        return None
    if session is not None and session.ended is None:
        if session.resumable:
            raise Conflict("this call is an upload with its own address; it can only be continued or ended there")
        await vault.uploads.make_way(session)
        offset = None if placing.resends else placing.offset
        durable = await vault.ingest.attach(session, offset=offset, call=call)
        async with vault.uploads.started(session, writer):
            tail = await _repeated(vault, session, placing, pieces, durable) if placing.resends else b""
            await _receive(vault, session, upload, pieces, tail)
        return await _answer(vault, session, upload)
    first = await pieces.first()
    if not first and not placing.offset:
        raise Invalid("the upload has no audio", hint="send the recording as the request body")
    if session is not None:
        return await _replay(vault, await _ended(vault, session), pieces, first, placing)
    if not first and (row := await vault.search.call(upload.tenant, upload.call_key)) is not None:
        return await _again(vault, upload, row, pieces, first)
    session, row = await _begin(vault, upload, first)
    if row is not None:
        return await _again(vault, upload, row, pieces, first)
    assert session is not None
    async with vault.uploads.started(session, writer):
        if placing.goes_on and placing.offset:
            _go_on(session, placing.offset)
        pieces.push_back(first)
        await _receive(vault, session, upload, pieces)
    return await _answer(vault, session, upload)


async def _joiner(upload: Upload, session: IngestSession, pieces: Pieces) -> Joiner:
    """Return the joiner for a session; to join another token's session, a format that is not declared is detected."""
    media = upload.declared
    if media is None and not upload.placing.offset and session.begun_by != upload.actor.token_id:
        first = await pieces.first()
        pieces.push_back(first)
        media = upload.media(first) if first else None
    return replace(upload.joiner, media=media)


async def _again(vault: Vault, upload: Upload, row: Recording, pieces: Pieces, first: bytes) -> web.Response | None:
    """Answer an upload under a finished recording's name; None, with the body unused, if the upload may not join it."""
    if not await vault.ingest.joining.same(upload.joiner, row):
        pieces.push_back(first)
        return None
    return await _replay(vault, await finished(vault, row), pieces, first, upload.placing)


async def _session(vault: Vault, upload: Upload) -> IngestSession | None:
    """Return the session with the call key. Waits for one that ends without audio, because that frees the key."""
    session = vault.ingest.live_call(upload.tenant, upload.call_key)
    if session is None or not session.ends_empty:
        return session
    try:
        async with asyncio.timeout(_PUT_AWAY_SECONDS):
            await session.done.wait()
    except TimeoutError as error:
        raise Unavailable(
            "an earlier, empty attempt still has this call key; nothing was recorded", retry_after_seconds=2
        ) from error
    return vault.ingest.live_call(upload.tenant, upload.call_key)


async def _begin(vault: Vault, upload: Upload, first: bytes) -> tuple[IngestSession | None, Recording | None]:
    """Start a recording, or return the finished one with this call key."""
    if upload.placing.offset and not upload.placing.goes_on:
        existing = await vault.search.call(upload.tenant, upload.call_key)
        if existing is None:
            raise OffsetMismatch("nothing is durable under this call key", hint="start at byte 0", offset=0)
        if existing.state is RecordingState.OPEN:
            vault.ingest.require_here(existing)
    call = CallStart(
        tenant=upload.tenant,
        call_key=upload.call_key,
        media=upload.media(first),
        facts=upload.facts,
        started_at=upload.started_at,
        retention=await vault.tenants.retention(upload.tenant),
        grace=upload.grace,
    )
    try:
        session = await vault.ingest.start(call, actor=upload.actor)
    except Conflict:
        existing = await vault.search.call(upload.tenant, upload.call_key)
        if existing is None:
            raise
        if existing.state is RecordingState.OPEN:
            vault.ingest.require_here(existing)
            raise
        return None, existing
    return session, None


async def _repeated(vault: Vault, session: IngestSession, placing: Placing, pieces: Pieces, durable: int) -> bytes:
    """Read repeated bytes up to the end of the `durable` ones; return the rest of the piece that reaches beyond it."""
    start = (placing.offset or 0) - (session.skipped if placing.offset else 0)
    if start > durable and placing.goes_on:
        _go_on(session, start - durable)
    elif not 0 <= start <= durable:
        session.require_offset(placing.offset)
    elif start < durable:
        return await _skip(vault, session, pieces, start, durable)
    return b""


def _go_on(session: IngestSession, missing: int) -> None:
    """Continue after bytes that never came: their client gave them up, but the rest of the call should be stored.

    Because of the gap, the recording does not end as sealed.
    """
    session.skip(missing)
    logger.warning(
        "a recorder continued after a refusal",
        extra={"fields": {"recording": session.recording.id, "missing_bytes": missing}},
    )


async def _skip(vault: Vault, session: IngestSession, pieces: Pieces, start: int, durable: int) -> bytes:
    """Read repeated bytes and check by hash that they equal the durable ones from `start` on.

    Return the rest of the piece that reaches beyond the durable bytes.
    """
    # The recorder counts the bytes that a pause dropped, but they were never hashed.
    notes = session.keeping.settled(session.durable)
    begin = kept_before(start, notes)
    known = session.digest if begin == 0 else await vault.storer.durable_digest(session, begin)
    assert known is not None
    resent = hashlib.sha256()
    missing = durable - start
    take = b""
    async for piece in pieces:
        take = piece[:missing]
        resent.update(kept_of(take, durable - missing, notes))
        missing -= len(take)
        if missing == 0:
            pieces.push_back(piece[len(take) :])
            break
    if missing or resent.digest() != known.digest():
        raise OffsetMismatch(
            f"{durable} bytes of this call are durable and the upload does not repeat them",
            hint=f"send Upload-Offset: {durable} and continue there",
            offset=durable,
        )
    return take


async def _receive(vault: Vault, session: IngestSession, upload: Upload, pieces: Pieces, tail: bytes = b"") -> None:
    """Write the body into the recording, and the end if the body has it; durable when this returns.

    If the request breaks off, the recording stays open: the rest of the call may still come.
    """
    started = session.durable
    counter = vault.metrics.ingest_bytes.labels(upload.dialect)
    ingest = vault.ingest
    ends = upload.placing.ends
    try:
        while piece := await pieces.next():
            if not ingest.take(session, piece):
                await ingest.write(session, piece)
            if not ends:
                tail = (tail + piece)[-TAIL_BYTES:]
        sent = session.appended + session.skipped + session.keeping.taken(session.appended)
        if ends or says_end(session.recording.media.container, tail, sent):
            await ingest.finish(session, ended="truncated:gap" if session.skipped else "sealed")
        else:
            await ingest.commit(session)
    finally:
        counter.inc(max(session.durable - started, 0))


async def _answer(vault: Vault, session: IngestSession, upload: Upload) -> web.Response:
    return await _created(vault, session, upload.finish_wait) if session.ended else await _accepted(vault, session)


async def _accepted(vault: Vault, session: IngestSession) -> web.Response:
    """Answer a piece: it is durable, and the recording is open until its end comes or its grace period ends."""
    assert session.digest is not None
    answer = _receipt(session.recording, session.durable, session.digest.hexdigest(), "open", status=202)
    answer.headers["Upload-Offset"] = str(await vault.notes.acknowledge(session))
    return answer


async def _created(vault: Vault, session: IngestSession, wait_seconds: float) -> web.Response:
    assert session.digest is not None
    assert session.ended is not None
    digest = session.digest.hexdigest()
    if not vault.storer.stalled:
        try:
            async with asyncio.timeout(wait_seconds):
                await session.done.wait()
        except TimeoutError:
            pass  # every byte and the end are in the journal; only the object store has not caught up
    state = session.ended.partition(":")[0] if session.done.is_set() else RecordingState.OPEN.value
    return _receipt(session.recording, session.durable, digest, state, status=201)


def receipt(row: Recording, size: int, sha256: str | None, state: str) -> Receipt:
    """Return the durable part of a recording for display."""
    return Receipt(id=row.id, recording_id=row.id, bytes=size, sha256=sha256, state=RecordingState(state))


def _receipt(row: Recording, size: int, sha256: str | None, state: str, *, status: int) -> web.Response:
    shown = receipt(row, size, sha256, state)
    return reply(shown, status=status, headers={"Location": f"/v1/recordings/{row.id}"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finished:
    """An ended recording, stored or not, to compare a repeated upload with."""

    row: Recording
    size: int
    received: int
    """How many bytes the recorder sent: `size`, and those that pauses dropped."""
    notes: Sequence[Note]
    sha256: str | None
    state: str


async def _ended(vault: Vault, session: IngestSession) -> _Finished:
    """Return a recording whose end is durable, but which is not in the object store yet."""
    sha256 = await vault.storer.plaintext_sha256(session)
    return _Finished(
        row=session.recording,
        size=session.durable,
        received=session.received,
        notes=session.keeping.settled(session.durable),
        sha256=sha256,
        state=RecordingState.OPEN.value,
    )


async def finished(vault: Vault, row: Recording) -> _Finished:
    """Return a stored recording from its manifest; Conflict if it is not stored or was shredded."""
    if row.state is RecordingState.OPEN:
        vault.ingest.require_here(row)
        raise Conflict("another upload for this call key is under way")
    if row.state not in (RecordingState.SEALED, RecordingState.TRUNCATED):
        raise Conflict("this call key belongs to a recording that was shredded", hint="call keys are not used twice")
    known = await vault.playback.finished(row)
    return _Finished(
        row=row,
        size=row.stored_bytes,
        received=known.received,
        notes=known.notes,
        sha256=known.sha256,
        state=row.state.value,
    )


async def last(vault: Vault, tenant: TenantId, call_key: str) -> _Finished | None:
    """Return the ended recording under a call key, None without one; Conflict like `finished`."""
    found = await vault.call_keys.resolve(tenant, call_key)
    if isinstance(found, IngestSession):
        return await _ended(vault, found)
    return None if found is None else await finished(vault, found)


async def _replay(vault: Vault, known: _Finished, pieces: Pieces, first: bytes, placing: Placing) -> web.Response:
    """Answer a repeated upload of an ended recording, or of a piece of it: 200 for the same audio, 409 otherwise.

    With an `Upload-Offset`, only the end can be repeated: a recorder whose answer was lost sends the bytes that it
    believes to be missing.
    """
    if placing.resends or not placing.offset:
        at = placing.offset or 0
        digest = hashlib.sha256(kept_of(first, at, known.notes))
        at += len(first)
        async for piece in pieces:
            digest.update(kept_of(piece, at, known.notes))
            at += len(piece)
        same = digest.hexdigest() == await _expected_sha256(vault, known, placing)
    else:
        same = placing.offset == known.received and not first
    if not same:
        raise Conflict("this call key belongs to another, finished recording", hint="call keys are not used twice")
    return _receipt(known.row, known.size, known.sha256, known.state, status=200)


async def _expected_sha256(vault: Vault, known: _Finished, placing: Placing) -> str | None:
    """Return the SHA-256 of the stored bytes that this body covers (all without a length); None beyond the end."""
    if placing.length is None:
        return known.sha256
    start = placing.offset or 0
    if start + placing.length > known.received:
        return None
    begin, end = (kept_before(at, known.notes) for at in (start, start + placing.length))
    digest = hashlib.sha256()
    async for piece in vault.playback.read(await vault.playback.finished(known.row), begin, end):
        digest.update(piece)
    return digest.hexdigest()
