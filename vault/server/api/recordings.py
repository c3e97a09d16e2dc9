"""Recordings over HTTP: list, search, show, explain and play them."""

from __future__ import annotations

import base64
import enum
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Final, Literal, NotRequired

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from vault import model
from vault.access.permissions import Act, permits
from vault.config.sections import Duration
from vault.errors import Refused, VaultError
from vault.ids import RecordingId
from vault.media.heads import playable_media
from vault.media.length import call_ended
from vault.media.ranges import parse_range
from vault.media.wav import View, has_wav_head, playable, verbatim
from vault.model import CallFacts, Codec, Container, Content, HoldKind, HoldState, RecordingState
from vault.ports.recordings import RecordingQuery
from vault.protocol.facts.parties import SENT
from vault.server.context import Admitted, query_id
from vault.server.operation import Answer, Operations, answer
from vault.server.schemas import (
    Body,
    CertificateRef,
    Count,
    ErasureRef,
    FormerRef,
    HoldRef,
    Instant,
    Moment,
    Number,
    RecordingRef,
    TenantRef,
    Who,
    render,
)
from vault.services.playback.playback import Explained, Playable, RecordingView
from vault.services.recordings.reading import look_through
from vault.services.recordings.search import CALL_KEY, FRAMES_LEFT_OUT, LEFT_OUT, STATED_START, Wanted
from vault.services.vault import Vault

OPERATIONS: Final = Operations("recordings")
_PAGE: Final = "One page; `before` continues it, null at the end."
_PLAYED: Final = {
    "Recording-State": "live, sealed or truncated.",
    "Accept-Ranges": "bytes",
    "Repr-Digest": "RFC 9530: the SHA-256 of the whole audio, if it is sent byte by byte as it is stored.",
}


_WINDOW_BYTES = 1 << 17
"""How many stored bytes are decrypted ahead of a reader; as PCM16, G.711 becomes twice as many."""
_SENT_BYTES = 1 << 16

logger = logging.getLogger(__name__)


class ListedState(enum.StrEnum):
    """A state of recordings. `live` are open recordings that the answering node is recording."""

    OPEN = "open"
    LIVE = "live"
    SEALED = "sealed"
    TRUNCATED = "truncated"
    SHREDDING = "shredding"
    SHREDDED = "shredded"


class SearchRecordings(Body):
    """POST /v1/recordings/search, and GET /v1/recordings with the same names."""

    tenant: str | None = None
    call_key: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    """The recorder's name for the call."""
    caller: Number | None = None
    called: Number | None = None
    agent: Number | None = None
    """The party on the tenant's side: the called party of inbound calls, the caller of outbound ones."""
    direction: Annotated[str, Field(pattern="^(inbound|outbound)$")] | None = None
    tag: Number | None = None
    state: ListedState | None = None
    started_from: Instant | None = Field(default=None, alias="from")
    started_to: Instant | None = Field(default=None, alias="to")
    held: bool | None = None
    ahead: bool | None = None
    min_bytes: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    max_bytes: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    min_duration: Duration | None = None
    """Such as 90s or 1h30m; only ended calls have a duration."""
    max_duration: Duration | None = None
    expires_from: Instant | None = None
    """The earliest `retain_until`; with `expires_from` or `expires_to` the earliest one comes first."""
    expires_to: Instant | None = None
    before: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class PlayAudio(Body):
    """GET /v1/recordings/{id}/audio."""

    format: Annotated[str, Field(pattern="^(wav|raw)$")] = "wav"


class _Media(TypedDict):
    container: Container
    codec: Codec
    rate: Count
    """In hertz; of a container as its header says, 0 if it does not say."""
    channels: Count
    """Of a container as its header says, 0 if it does not say."""
    channel_map: list[str]
    content: Content | None
    """The format of the first bytes, if that is not the declared one."""


class _Call(TypedDict):
    call_key: str | None
    caller: str | None
    called: str | None
    direction: str | None
    tags: list[str]
    stated_start: NotRequired[Moment]
    """The start that the recorder stated, if the vault uses the time of receipt instead."""
    caller_sent: NotRequired[str]
    """The caller as the recorder spelt it, if that differs from `caller`."""
    called_sent: NotRequired[str]
    """The called party as the recorder spelt it, if that differs from `called`."""
    facts_left_out: NotRequired[str]
    """Which stated facts were not kept, and why."""
    frames_left_out: NotRequired[str]
    """How many frames of a live call could not be read, and why."""


class _Hold(TypedDict):
    id: HoldRef
    kind: HoldKind
    state: HoldState


class Recording(TypedDict):
    """A recording; `call`, with the recorder's facts, only if the viewer may read and opened them."""

    id: RecordingRef
    tenant: TenantRef
    state: RecordingState
    state_reason: str | None
    live: bool
    bytes: Count
    media: _Media
    created_at: Moment
    started_at: Moment
    ended_at: Moment | None
    """The call's end; null during the call, or if the end is unknown."""
    duration_ms: Count | None
    """How long the call lasted, including its pauses and gaps."""
    finished_at: Moment | None
    """When its last bytes had arrived; null while it is open."""
    retain_until: Moment
    retention_class: str
    certificate_id: CertificateRef | None
    metadata_certificate_id: CertificateRef | None
    call: NotRequired[_Call]
    """Only for roles that may read facts, and only while their key exists."""
    holds: NotRequired[list[_Hold]]


class RecordingPage(TypedDict):
    """Recordings."""

    recordings: list[Recording]
    before: RecordingRef | None


class _Rule(TypedDict):
    rule: str
    applies: bool
    effect: Literal["keeps", "deletes", "none"]
    text: str
    hold: HoldRef | None
    matter: str | None
    until: Moment | None
    certificate: CertificateRef | None
    erasure: ErasureRef | None
    requested_by: Who | None
    approved_by: Who | None


class Why(TypedDict):
    """Why a recording is kept or gone."""

    id: RecordingRef
    recording_id: FormerRef
    state: RecordingState
    retain_until: Moment
    key_exists: bool
    certificate_id: CertificateRef | None
    metadata_key_exists: bool
    metadata_certificate_id: CertificateRef | None
    rules: list[_Rule]


def render_recording(view: RecordingView) -> Recording:
    """Render a recording."""
    row = view.recording
    return render(
        Recording,
        row,
        live=view.live,
        bytes=view.length,
        media=render(_Media, row.media, content=row.content),
        ended_at=call_ended(row),
        duration_ms=None if row.lasted is None else row.lasted // timedelta(milliseconds=1),
        finished_at=row.ended_at,
        call=None if view.facts is None else _call(view.facts),
        holds=[render(_Hold, hold) for hold in view.holds] or None,
    )


def _call(facts: CallFacts) -> _Call:
    extra = facts.extra
    stated = extra.get(STATED_START)
    return render(
        _Call,
        facts,
        call_key=extra.get(CALL_KEY),
        tags=list(facts.tags),
        stated_start=None if stated is None else datetime.fromisoformat(stated),
        **{name: extra[name] for name in (*SENT, LEFT_OUT, FRAMES_LEFT_OUT) if name in extra},
    )


def _why(explained: Explained) -> Why:
    row = explained.recording
    return render(
        Why,
        row,
        recording_id=row.id,
        key_exists=explained.key_exists,
        metadata_key_exists=explained.metadata_key_exists,
        rules=[render(_Rule, line) for line in explained.rules],
    )


async def recording_of(request: Admitted) -> model.Recording:
    """Return the recording in the path."""
    return await request.own("recording", request.vault.catalog.recording)


@OPERATIONS(
    "POST /v1/recordings/search",
    Act.RECORDING_LIST,
    answer(_PAGE, RecordingPage),
    name="searchRecordings",
    summary="The same list, with the number in the body instead of the address",
    body=SearchRecordings,
    headers=("Purpose",),
)
@OPERATIONS(
    "GET /v1/recordings",
    Act.RECORDING_LIST,
    answer(_PAGE, RecordingPage),
    query=SearchRecordings,
    headers=("Purpose",),
)
async def list_recordings(request: Admitted, wanted: SearchRecordings) -> RecordingPage:
    """List recordings, newest call first, without personal facts."""
    vault, actor = request.vault, request.actor
    tenant = await request.within(wanted.tenant)
    before = query_id(wanted.before, "rec", "before")
    live = wanted.state is ListedState.LIVE
    chosen = wanted.into(
        RecordingQuery,
        tenant=tenant,
        state=None if live or wanted.state is None else RecordingState(wanted.state.value),
        before=RecordingId(before) if before else None,
    )
    sought = wanted.into(Wanted)
    if sought.fields:
        await vault.access.authorise(actor, Act.FACTS_READ, tenant=tenant)
        purpose = _purpose(request)
        page = await vault.recordings.search(chosen, sought, purpose=purpose, actor=actor, live=live)
    else:
        page = await vault.recordings.list(chosen, actor=actor, live=live)
    more = page[-1].recording.id if len(page) == wanted.limit else None
    return RecordingPage(recordings=[render_recording(view) for view in page], before=more)


def _purpose(request: Admitted) -> str:
    return request.vault.playback.check_purpose(request.http.headers.get("Purpose"))


@OPERATIONS("GET /v1/recordings/{recording}", Act.RECORDING_SHOW, answer("The recording.", Recording), of=recording_of)
async def show_recording(request: Admitted, row: model.Recording) -> Recording:
    """Show one recording: facts, retention, holds, state."""
    actor = request.actor
    return render_recording(
        await request.vault.recordings.show(row, actor=actor, facts=permits(actor.role, Act.FACTS_READ))
    )


@OPERATIONS(
    "GET /v1/recordings/{recording}/why",
    Act.RECORDING_WHY,
    answer("The rules in order of precedence, the decision last.", Why),
    of=recording_of,
)
async def explain_recording(request: Admitted, row: model.Recording) -> Why:
    """Explain, rule by rule, why the recording is kept or was deleted."""
    return _why(await request.vault.recordings.why(row, actor=request.actor))


@dataclass(frozen=True, slots=True, kw_only=True)
class Audible:
    """A recording that the sender may hear, also where a hold protects it, and what for."""

    recording: model.Recording
    purpose: str


async def audible(request: Admitted) -> Audible:
    """Return the recording in the path once the sender may hear it."""
    row, purpose = await recording_of(request), _purpose(request)
    if await request.vault.holds.in_force_on(row.id):
        await request.vault.access.authorise(request.actor, Act.PLAY_HELD, tenant=row.tenant, target=row.id)
    return Audible(recording=row, purpose=purpose)


@contextmanager
def playing(request: Admitted) -> Iterator[None]:
    """Use one of the token's playbacks inside the context; a revocation of the token cuts the answer off."""
    vault, token, transport = request.vault, request.actor.token_id, request.http.transport

    def cut() -> None:
        if transport is not None:
            transport.abort()

    with vault.playback.slots.taken(token):
        leave = vault.access.underway.enter(token, cut)
        try:
            yield
        finally:
            leave()


@OPERATIONS(
    "GET /v1/recordings/{recording}/audio",
    Act.PLAY,
    {
        200: Answer(text="The whole audio, verified.", content={"audio/*": None}, headers=_PLAYED),
        206: Answer(text="The requested range, verified.", content={"audio/*": None}, headers=_PLAYED),
    },
    of=audible,
    query=PlayAudio,
    headers=("Purpose", "Range"),
    problems=(409, 410, 416, 429, 500),
)
async def play_recording(request: Admitted, heard: Audible, wanted: PlayAudio) -> web.StreamResponse:
    """Play the audio; a live call plays up to its durable end.

    Each window of bytes is verified before it is sent. The answer is cut off if a later window fails.
    """
    vault, row = request.vault, heard.recording
    with playing(request):
        opened = await vault.playback.open(row.id, actor=request.actor, purpose=heard.purpose)
        view = await _view(vault, opened, raw=wanted.format == "raw")
        return await send(
            request.http,
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
    """Send `length` verified bytes, or the requested range of them; `pieces_of` reads a range.

    `sha256` is that of all the bytes, if it is known.
    """
    # Only GET has ranges (RFC 9110 section 14.2). If-Range never matches, because answers carry no validator.
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
        # The headers are sent, so only an aborted connection shows the failure. A problem document would arrive as
        # the next bytes of the audio.
        if request.transport is not None:
            request.transport.abort()
        raise
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, piece: bytes) -> None:
    """Send a piece; for a slow reader most of it waits here, not in the connection."""
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
