"""What goes with a call beside its audio, over HTTP: pause and resume it, look at its notes, hand in documents."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeVar

from aiohttp import web

from vault.access.permissions import Act
from vault.errors import Conflict, Invalid, NotFound, TooLarge, UnsupportedMedia
from vault.format.notes import MAX_DOCUMENT_BYTES, MAX_MEDIA_TYPE, Document, Missing, Note, Pause, Tone
from vault.ids import TenantId
from vault.model import Principal, Recording, RecordingState
from vault.protocol.facts import siprec
from vault.server.api.recordings import permitted, playing, readable, send
from vault.server.context import VAULT, Handler, authorised, path_call_key, principal, small_body
from vault.server.operation import Answer, Operation
from vault.server.operation import json_answer as _json
from vault.server.problems import problem
from vault.server.refusals import failing
from vault.server.shapes import TEXT
from vault.server.views import moment, moment_of_ms
from vault.services.ingest.sessions import IngestSession
from vault.services.playback.playback import Playable
from vault.services.vault import Vault
from vault.telemetry import request_id

_T = TypeVar("_T")
_DIALECT: Final = "siprec"
_MAX_NUMBER_DIGITS: Final = 6
_STATE: Final = {200: _json("It is so now, durably.", "Pause")}
_BY: Final = (
    ("/v1/recordings/{recording}", "Recording", "recordings", Act.PAUSE),
    ("/v1/ingest/{tenant}/{call_key}", "Call", "ingest", Act.INGEST),
)

OPERATIONS: Final = (
    *(
        Operation(
            method="post",
            path=f"{path}/{verb}",
            name=f"{verb}{name}",
            tag=tag,
            summary=summary,
            act=act,
            answers=_STATE,
            problems=(404, 409),
        )
        for path, name, tag, act in _BY
        for verb, summary in (
            ("pause", "Stop keeping a live call: what arrives is dropped before it is sealed"),
            ("resume", "Keep a live call again"),
        )
    ),
    Operation(
        method="post",
        path="/v1/ingest/{tenant}/{call_key}/siprec",
        name="addSiprecMetadata",
        tag="ingest",
        summary="Hand in the SIPREC metadata of a live call (RFC 7865), alone or in a multipart",
        act=Act.INGEST,
        takes=(*sorted(siprec.XML_TYPES), "multipart/mixed"),
        answers={200: _json("Kept as it came; `parsed` says whether facts were found in it.", "SiprecReceipt")},
        problems=(404, 409, 413, 415, 422),
    ),
    Operation(
        method="get",
        path="/v1/recordings/{recording}/notes",
        name="recordingNotes",
        tag="recordings",
        summary="Tell what happened beside the audio: gaps and pauses, keys pressed, documents",
        act=Act.PLAY,
        headers=("Purpose",),
        answers={200: _json("The notes, in order.", "Notes")},
        problems=(404, 409, 410, 422, 500),
    ),
    Operation(
        method="get",
        path="/v1/recordings/{recording}/documents/{number}",
        name="recordingDocument",
        tag="recordings",
        summary="Fetch one document about the call, exactly as it was handed in",
        act=Act.PLAY,
        headers=("Purpose",),
        answers={200: Answer(text="The document.", content={"*/*": TEXT})},
        problems=(404, 409, 410, 422, 500),
    ),
    Operation(
        method="get",
        path="/v1/recordings/{recording}/aside/{number}",
        name="recordingAside",
        tag="recordings",
        summary="Fetch one part of an upload that was acknowledged and is not in the audio, exactly as it was sent",
        act=Act.PLAY,
        headers=("Purpose", "Range"),
        answers={
            200: Answer(text="The part.", content={"application/octet-stream": TEXT}),
            206: Answer(text="The range of it.", content={"application/octet-stream": TEXT}),
        },
        problems=(404, 409, 410, 416, 422, 500),
    ),
)


def add_routes(app: web.Application) -> None:
    """Route what recorders and people do beside the audio."""
    router = app.router
    for verb, paused in (("pause", True), ("resume", False)):
        router.add_post(f"/v1/ingest/{{tenant}}/{{call_key}}/{verb}", _of_call(paused=paused))
        router.add_post(f"/v1/recordings/{{recording}}/{verb}", _of_recording(paused=paused))
    router.add_post("/v1/ingest/{tenant}/{call_key}/siprec", add_siprec)
    router.add_get("/v1/recordings/{recording}/notes", show)
    router.add_get("/v1/recordings/{recording}/documents/{number}", document)
    router.add_get("/v1/recordings/{recording}/aside/{number}", aside)


# -- pausing ----------------------------------------------------------------------------------------------------


def _of_recording(*, paused: bool) -> Handler:
    async def turn(request: web.Request) -> web.Response:
        row = await permitted(request, Act.PAUSE)
        vault = request.app[VAULT]
        session = vault.ingest.live(row.id)
        if session is None or session.ending is not None:
            raise _not_live(vault, row)
        return await _turn(request, session, paused=paused)

    return turn


def _of_call(*, paused: bool) -> Handler:
    async def turn(request: web.Request) -> web.Response:
        return await _turn(request, await _session(request), paused=paused)

    return turn


async def _turn(request: web.Request, session: IngestSession, *, paused: bool) -> web.Response:
    vault = request.app[VAULT]
    if paused and vault.parts.is_upload(session):
        raise Conflict(
            "the audio of this call comes in parts, which a pause does not reach",
            hint="end the upload before what must not be kept is said: no part that was sent is thrown away",
        )
    change = vault.notes.pause if paused else vault.notes.resume
    await change(session, actor=await principal(request))
    left = vault.ingest.pause_left(session)
    return web.json_response(
        {
            "id": session.recording.id,
            "recording_id": session.recording.id,
            "paused": session.keeping.paused,
            "ends_at": None if left is None else moment(vault.clock.now() + left),
            "bytes": session.durable,
        }
    )


def _not_live(vault: Vault, row: Recording) -> Conflict:
    """Return why a recording cannot be paused here; Unavailable if it is another node's."""
    if row.state is RecordingState.OPEN:
        vault.ingest.require_here(row)
    return Conflict("the call is not live: it has ended, or its end is being written")


async def _session(request: web.Request) -> IngestSession:
    """Return the live recording behind the recorder's call key; NotFound, Conflict once it ended."""
    vault = request.app[VAULT]
    tenant, actor = await authorised(request)
    call_key = path_call_key(request)
    found = _live(vault, tenant, call_key, actor)
    if found is None:
        row = await vault.search.call(tenant, call_key)
        if row is None:
            raise NotFound("nothing was recorded under this call key yet")
        raise _not_live(vault, row)
    return found


def _live(vault: Vault, tenant: TenantId, call_key: str, actor: Principal) -> IngestSession | None:
    """Return the live recording of this key, or of those that followed it as `key~2` and on: first the actor's own."""
    if (own := vault.ingest.own_call(tenant, call_key, actor.token_id)) is not None:
        return own
    return next((each for each in vault.ingest.live_calls(tenant, call_key).values() if each.ending is None), None)


# -- documents --------------------------------------------------------------------------------------------------


async def add_siprec(request: web.Request) -> web.Response:
    """POST …/siprec: the document is durable before it is read; one that cannot be read is kept all the same."""
    vault = request.app[VAULT]
    try:
        session = await _session(request)
    except NotFound as error:
        failing(request, error)
        answer = problem(error, request_id=request_id.get(), close=True)
        answer.headers["Retry-After"] = "1"
        return answer
    media_type = request.headers.get("Content-Type", "")
    kind = media_type.partition(";")[0].strip().lower()
    if kind not in siprec.XML_TYPES and not kind.startswith("multipart/"):
        raise UnsupportedMedia(
            "this is not SIPREC metadata", hint="send application/rs-metadata+xml, or multipart/mixed with it"
        )
    if len(media_type) > MAX_MEDIA_TYPE or not media_type.isprintable():
        raise Invalid("the content type is too long or not text")
    content = await _body(request)
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
    return web.json_response(
        {
            "id": session.recording.id,
            "recording_id": session.recording.id,
            "document": number,
            "parsed": why is None,
            "why": why,
            "participants": participants,
        }
    )


async def _body(request: web.Request) -> bytes:
    too_large = TooLarge(f"a document has at most {MAX_DOCUMENT_BYTES} bytes; this one was not kept")
    content = await small_body(request, limit=MAX_DOCUMENT_BYTES, too_large=too_large)
    if not content:
        raise Invalid("the document is empty", hint="send it as the request body")
    return content


# -- looking ----------------------------------------------------------------------------------------------------


async def _opened(request: web.Request) -> Playable:
    """Return the recording, its access allowed and logged as a play is."""
    vault = request.app[VAULT]
    row, purpose = await readable(request)
    return await vault.playback.open(row.id, actor=await principal(request), purpose=purpose, act="access.notes")


async def show(request: web.Request) -> web.Response:
    """GET /v1/recordings/{id}/notes."""
    opened = await _opened(request)
    return web.json_response(_shown(opened), headers={"Cache-Control": "no-store"})


async def document(request: web.Request) -> web.Response:
    """GET /v1/recordings/{id}/documents/{n}."""
    note = _numbered(request, _documents((await _opened(request)).notes), "document")
    return web.Response(
        body=note.content,
        headers={
            "Content-Type": note.media_type,
            "Content-Disposition": "attachment",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )


def _numbered(request: web.Request, found: Sequence[_T], what: str) -> _T:
    text = request.match_info["number"]
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_NUMBER_DIGITS or int(text) >= len(found):
        raise NotFound(f"the call has no {what} of this number")
    return found[int(text)]


async def aside(request: web.Request) -> web.StreamResponse:
    """GET /v1/recordings/{id}/aside/{n}: a part that is not in the audio, verified as the audio is."""
    playback = request.app[VAULT].playback
    with playing(request, await principal(request)):
        opened = await _opened(request)
        part = _numbered(request, opened.aside, "part kept aside")

        def pieces_of(start: int, end: int) -> AsyncIterator[bytes]:
            return playback.read(opened, part.start + start, part.start + end)

        return await send(
            request, opened, pieces_of, length=part.end - part.start, content_type="application/octet-stream"
        )


def _documents(notes: Sequence[Note]) -> list[Document]:
    return [note for note in notes if isinstance(note, Document)]


def _shown(opened: Playable) -> dict[str, Any]:
    notes = opened.notes
    return {
        "id": opened.recording.id,
        "recording_id": opened.recording.id,
        "live": opened.live,
        "paused": opened.live and any(isinstance(note, Pause) and note.lasting for note in notes),
        "gaps": [
            {
                "offset": note.offset,
                "at": moment_of_ms(note.at_ms),
                "reason": "paused" if isinstance(note, Pause) else "lost",
                "missing_ms": note.missing_ms,
                "dropped_bytes": note.dropped if isinstance(note, Pause) else 0,
            }
            for note in notes
            if isinstance(note, Pause | Missing)
        ],
        "dtmf": [
            {
                "offset": note.offset,
                "at": moment_of_ms(note.at_ms),
                "digit": note.digit,
                "duration_ms": note.duration_ms,
            }
            for note in notes
            if isinstance(note, Tone)
        ],
        "documents": [
            {
                "number": number,
                "offset": note.offset,
                "at": moment_of_ms(note.at_ms),
                "media_type": note.media_type,
                "bytes": len(note.content),
                "sha256": hashlib.sha256(note.content).hexdigest(),
            }
            for number, note in enumerate(_documents(notes))
        ],
        "aside": [
            {"number": number, "part": part.part, "bytes": part.end - part.start}
            for number, part in enumerate(opened.aside)
        ],
    }
