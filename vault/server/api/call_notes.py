"""Pauses, notes and documents of a call, over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal, TypeVar

from aiohttp import web
from typing_extensions import TypedDict

from vault.access.permissions import Act
from vault.errors import Conflict, Invalid, NotFound, TooLarge, UnsupportedMedia
from vault.format import notes
from vault.format.notes import MAX_DOCUMENT_BYTES, MAX_MEDIA_TYPE, Document, Missing, Note, Tone
from vault.ids import TenantId
from vault.model import Principal, Recording, RecordingState
from vault.protocol.facts import siprec
from vault.server.api.recordings import Audible, audible, playing, recording_of, send
from vault.server.context import Admitted, path_call_key, small_body
from vault.server.operation import TEXT, Answer, Operations, answer
from vault.server.problems import problem
from vault.server.refused_request import failing
from vault.server.schemas import Count, FormerRef, Moment, RecordingRef, Sha256, moment, moment_of_ms, render
from vault.services.ingest.sessions import IngestSession
from vault.services.playback.playback import Playable
from vault.services.vault import Vault
from vault.telemetry import request_id

_T = TypeVar("_T")
_DIALECT: Final = "siprec"
_MAX_NUMBER_DIGITS: Final = 6

OPERATIONS: Final = Operations("recordings")


class _OfRecording(TypedDict):
    id: RecordingRef
    recording_id: FormerRef


class Pause(_OfRecording):
    """Whether a live call is paused."""

    paused: bool
    ends_at: Moment | None
    """When the vault will end the pause; null without a pause."""
    bytes: Count
    """Durable bytes of the call so far."""


class SiprecReceipt(_OfRecording):
    """The result of handing in a document."""

    document: Count
    """Its number among the call's documents, from 0."""
    parsed: bool
    why: str | None
    """Why the document could not be parsed."""
    participants: Count


class _Gap(TypedDict):
    offset: Count
    """The byte of the stored audio before which the gap is."""
    at: Moment | None
    reason: Literal["paused", "lost"]
    missing_ms: Count
    dropped_bytes: Count


class _Tone(TypedDict):
    offset: Count
    at: Moment | None
    digit: str
    duration_ms: Count | None


class _Document(TypedDict):
    number: Count
    offset: Count
    at: Moment | None
    media_type: str
    bytes: Count
    sha256: Sha256


class _Aside(TypedDict):
    number: Count
    part: Count
    """The part's number in its upload; 0 for bytes that an interrupted completion had written."""
    bytes: Count


class Notes(_OfRecording):
    """The notes of a call: gaps, keys, documents, and parts kept aside."""

    live: bool
    paused: bool
    gaps: list[_Gap]
    dtmf: list[_Tone]
    documents: list[_Document]
    aside: list[_Aside]


# -- pausing ----------------------------------------------------------------------------------------------------


_STATE: Final = answer("The new state, which is durable.", Pause)
_RECORDING: Final = "POST /v1/recordings/{recording}"
_CALL: Final = "POST /v1/ingest/{tenant}/{call_key}"


async def _named(request: Admitted) -> IngestSession:
    """Return the session of the recording in the path; Conflict if it is not live."""
    row, vault = await recording_of(request), request.vault
    session = vault.ingest.live(row.id)
    if session is None or session.ending is not None:
        raise _not_live(vault, row)
    return session


async def _session(request: Admitted) -> IngestSession:
    """Return the session with the call key in the path; NotFound, or Conflict once it has ended."""
    vault, tenant, call_key = request.vault, request.tenant, path_call_key(request.http)
    found = _live(vault, tenant, call_key, request.actor)
    if found is None:
        row = await vault.search.call(tenant, call_key)
        if row is None:
            raise NotFound("nothing was recorded under this call key yet")
        raise _not_live(vault, row)
    return found


@OPERATIONS(f"{_RECORDING}/pause", Act.PAUSE, _STATE, of=_named)
async def pause_recording(request: Admitted, session: IngestSession) -> Pause:
    """Pause a live call: its audio is dropped before it is sealed."""
    return await _turn(request, session, paused=True)


@OPERATIONS(f"{_RECORDING}/resume", Act.PAUSE, _STATE, of=_named)
async def resume_recording(request: Admitted, session: IngestSession) -> Pause:
    """Resume a live call: its audio is kept again."""
    return await _turn(request, session, paused=False)


@OPERATIONS(f"{_CALL}/pause", Act.INGEST, _STATE, of=_session, tag="ingest", problems=(409,))
async def pause_call(request: Admitted, session: IngestSession) -> Pause:
    """Pause a live call: its audio is dropped before it is sealed."""
    return await _turn(request, session, paused=True)


@OPERATIONS(f"{_CALL}/resume", Act.INGEST, _STATE, of=_session, tag="ingest", problems=(409,))
async def resume_call(request: Admitted, session: IngestSession) -> Pause:
    """Resume a live call: its audio is kept again."""
    return await _turn(request, session, paused=False)


async def _turn(request: Admitted, session: IngestSession, *, paused: bool) -> Pause:
    vault = request.vault
    if paused and vault.parts.is_upload(session):
        raise Conflict(
            "the audio of this call arrives in parts, which a pause cannot drop",
            hint="end the upload before audio that must not be kept: every part that was sent is kept",
        )
    change = vault.notes.pause if paused else vault.notes.resume
    await change(session, actor=request.actor)
    left = vault.ingest.pause_left(session)
    return Pause(
        id=session.recording.id,
        recording_id=session.recording.id,
        paused=session.keeping.paused,
        ends_at=None if left is None else moment(vault.clock.now() + left),
        bytes=session.durable,
    )


def _not_live(vault: Vault, row: Recording) -> Conflict:
    """Return why a recording cannot be paused here; Unavailable if it is another node's."""
    if row.state is RecordingState.OPEN:
        vault.ingest.require_here(row)
    return Conflict("the call is not live: it has ended, or its end is being written")


def _live(vault: Vault, tenant: TenantId, call_key: str, actor: Principal) -> IngestSession | None:
    """Return the live session with this call key or a further name of its call; first one that the actor began."""
    if (own := vault.ingest.own_call(tenant, call_key, actor.token_id)) is not None:
        return own
    return next((each for each in vault.ingest.live_calls(tenant, call_key).values() if each.ending is None), None)


# -- documents --------------------------------------------------------------------------------------------------


@OPERATIONS(
    f"{_CALL}/siprec",
    Act.INGEST,
    answer("The document is kept unchanged; `parsed` says whether facts were read from it.", SiprecReceipt),
    tag="ingest",
    takes=(*sorted(siprec.XML_TYPES), "multipart/mixed"),
    problems=(409, 413, 415, 422),
)
async def add_siprec_metadata(request: Admitted) -> SiprecReceipt | web.Response:
    """Hand in the SIPREC metadata of a live call (RFC 7865), alone or in a multipart.

    The document is durable before it is parsed. A document that cannot be parsed is kept too.
    """
    vault, headers = request.vault, request.http.headers
    try:
        session = await _session(request)
    except NotFound as error:
        failing(request.http, error)
        refusal = problem(error, request_id=request_id.get(), close=True)
        refusal.headers["Retry-After"] = "1"
        return refusal
    media_type = headers.get("Content-Type", "")
    kind = media_type.partition(";")[0].strip().lower()
    if kind not in siprec.XML_TYPES and not kind.startswith("multipart/"):
        raise UnsupportedMedia(
            "this is not SIPREC metadata", hint="send application/rs-metadata+xml, or multipart/mixed with it"
        )
    if len(media_type) > MAX_MEDIA_TYPE or not media_type.isprintable():
        raise Invalid("the content type is too long or not text")
    content = await _body(request.http)
    number = await vault.notes.document(session, media_type=media_type, content=content)
    vault.metrics.ingest_bytes.labels(_DIALECT).inc(len(content))
    participants, why = 0, None
    try:
        metadata = siprec.parse(siprec.part_of(media_type, content))
    except Invalid as error:
        why = error.message
    else:
        participants = len(metadata.participants)
        await vault.notes.revise(session, siprec.facts(metadata))
    return SiprecReceipt(
        id=session.recording.id,
        recording_id=session.recording.id,
        document=number,
        parsed=why is None,
        why=why,
        participants=participants,
    )


async def _body(request: web.Request) -> bytes:
    too_large = TooLarge(f"a document has at most {MAX_DOCUMENT_BYTES} bytes; this one was not kept")
    content = await small_body(request, limit=MAX_DOCUMENT_BYTES, too_large=too_large)
    if not content:
        raise Invalid("the document is empty", hint="send it as the request body")
    return content


# -- notes and parts --------------------------------------------------------------------------------------------


async def _opened(request: Admitted) -> Playable:
    """Return the recording in the path, opened for reading; its access is checked and logged like a play."""
    return await _opening(request, await audible(request))


async def _opening(request: Admitted, heard: Audible) -> Playable:
    playback = request.vault.playback
    return await playback.open(heard.recording.id, actor=request.actor, purpose=heard.purpose, act="access.notes")


@OPERATIONS(
    "GET /v1/recordings/{recording}/notes",
    Act.PLAY,
    answer("The notes, in order.", Notes, private=True),
    of=_opened,
    headers=("Purpose",),
    problems=(409, 410, 422, 500),
)
async def recording_notes(_: Admitted, opened: Playable) -> Notes:
    """Show the notes of a call: gaps and pauses, pressed keys, documents."""
    return _shown(opened)


@OPERATIONS(
    "GET /v1/recordings/{recording}/documents/{number}",
    Act.PLAY,
    {200: Answer(text="The document.", content={"*/*": TEXT})},
    of=_opened,
    headers=("Purpose",),
    problems=(409, 410, 422, 500),
)
async def recording_document(request: Admitted, opened: Playable) -> web.Response:
    """Fetch one document about the call, exactly as it was handed in."""
    note = _numbered(request, _documents(opened.notes), "document")
    return web.Response(
        body=note.content,
        headers={
            "Content-Type": note.media_type,
            "Content-Disposition": "attachment",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )


def _numbered(request: Admitted, found: Sequence[_T], what: str) -> _T:
    text = request.http.match_info["number"]
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_NUMBER_DIGITS or int(text) >= len(found):
        raise NotFound(f"the call has no {what} with this number")
    return found[int(text)]


@OPERATIONS(
    "GET /v1/recordings/{recording}/aside/{number}",
    Act.PLAY,
    {
        200: Answer(text="The part.", content={"application/octet-stream": TEXT}),
        206: Answer(text="The requested range.", content={"application/octet-stream": TEXT}),
    },
    of=audible,
    headers=("Purpose", "Range"),
    problems=(409, 410, 416, 422, 500),
)
async def recording_aside(request: Admitted, heard: Audible) -> web.StreamResponse:
    """Fetch one part of an upload that was acknowledged and is not in the audio, exactly as it was sent.

    It is verified like audio.
    """
    playback = request.vault.playback
    with playing(request):
        opened = await _opening(request, heard)
        part = _numbered(request, opened.aside, "part kept aside")

        def pieces_of(start: int, end: int) -> AsyncIterator[bytes]:
            return playback.read(opened, part.start + start, part.start + end)

        return await send(
            request.http, opened, pieces_of, length=part.end - part.start, content_type="application/octet-stream"
        )


def _documents(notes: Sequence[Note]) -> list[Document]:
    return [note for note in notes if isinstance(note, Document)]


def _shown(opened: Playable) -> Notes:
    found = opened.notes
    return Notes(
        id=opened.recording.id,
        recording_id=opened.recording.id,
        live=opened.live,
        paused=opened.live and any(isinstance(note, notes.Pause) and note.lasting for note in found),
        gaps=[_gap(note) for note in found if isinstance(note, notes.Pause | Missing)],
        dtmf=[render(_Tone, note, at=moment_of_ms(note.at_ms)) for note in found if isinstance(note, Tone)],
        documents=[
            render(
                _Document,
                note,
                number=number,
                at=moment_of_ms(note.at_ms),
                bytes=len(note.content),
                sha256=hashlib.sha256(note.content).hexdigest(),
            )
            for number, note in enumerate(_documents(found))
        ],
        aside=[
            _Aside(number=number, part=part.part, bytes=part.end - part.start)
            for number, part in enumerate(opened.aside)
        ],
    )


def _gap(note: notes.Pause | Missing) -> _Gap:
    dropped = note.dropped if isinstance(note, notes.Pause) else None
    return render(
        _Gap,
        note,
        at=moment_of_ms(note.at_ms),
        reason="lost" if dropped is None else "paused",
        dropped_bytes=dropped or 0,
    )
