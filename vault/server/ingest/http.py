"""HTTP streams: PUT or POST a recording while the call runs, HEAD to ask how much is durable."""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from vault.access.permissions import Act
from vault.errors import Invalid, NotFound, TooLarge
from vault.ids import TenantId, call_keys, call_name, call_number
from vault.media.descriptor import is_declared, parse_content_type
from vault.model import Recording, RecordingState
from vault.protocol.facts.stated import call_headers
from vault.protocol.uploads.http_put import Placing, placing
from vault.retention.periods import format_duration
from vault.server.context import CONFIG, VAULT, Admitted, go_on, path_call_key
from vault.server.ingest.body import BodyPieces, writing
from vault.server.ingest.uploading import Receipt, Upload, finished, last, preflight, take
from vault.server.operation import Answer, Operations, answer
from vault.server.schemas import Count, Moment, TenantRef, moment
from vault.services.ingest.live import LIVE_PATIENCE
from vault.services.ingest.open_rows import Joiner
from vault.services.ingest.sessions import IngestSession
from vault.services.vault import Vault

_DIALECT: Final = "http"

_OFFSET: Final = {
    "Upload-Offset": "Bytes that are durable.",
    "Recording-Id": "The recording's id.",
    "Recording-State": "open, sealed or truncated.",
    "Recording-Kept-Until": "When its retention ends.",
}
_UPLOAD_HEADERS: Final = (
    "Upload-Offset",
    "Content-Range",
    "Call-From",
    "Call-To",
    "Call-Direction",
    "Call-Started",
    "Call-Tags",
)
UPLOADED: Final = {
    **answer(
        "Every byte is durable. `open`: not all bytes are in the object store yet.", Receipt, status=201, location=True
    ),
    **answer("The same audio was recorded under this call key before.", Receipt, location=True),
}
UPLOAD_PROBLEMS: Final = (404, 408, 409, 413, 415, 422, 423, 507)
_ANSWERS: Final = UPLOADED | answer(
    "The piece is durable; the recording continues.", Receipt, status=202, location=True
)
_PLACE: Final = "/v1/ingest/{tenant}/{call_key}"

OPERATIONS: Final = Operations("ingest")


class Terms(TypedDict):
    """The terms for a recorder's recordings."""

    tenant: TenantRef
    retention: Annotated[str, Field(examples=["90d"])]
    """How long a recording that begins now is kept."""
    floor: Annotated[str, Field(examples=["1d"])]
    """How long it is kept after its receipt at least."""
    backdating: Annotated[str, Field(examples=["7d"])]
    """The retention counts from a stated start at most this long before the receipt, unless the token imports."""
    imports_until: Moment | None
    """Until then the retention counts from any stated start; null: this token does not import."""
    max_recording_bytes: Count


async def ask(request: web.Request, said: Upload) -> None:
    """Send `100 Continue` to a recorder that waits for it, after its headers were checked."""
    if "Expect" in request.headers:
        await preflight(request.app[VAULT], said)
        go_on(request)


@OPERATIONS(
    "GET /v1/ingest/{tenant}", Act.INGEST, answer("The terms for recordings that begin now.", Terms), problems=(409,)
)
async def ingest_terms(request: Admitted) -> Terms:
    """Ask how long what this token records is kept, and how large it may be.

    An import asks this before it sends the first file.
    """
    limits = request.vault.ingest.limits
    return Terms(
        tenant=request.tenant,
        retention=str(await request.vault.tenants.retention(request.tenant)),
        floor=str(limits.retention_floor),
        backdating=format_duration(limits.backdating),
        imports_until=moment(request.actor.imports_until),
        max_recording_bytes=limits.max_recording_bytes,
    )


@OPERATIONS(
    f"HEAD {_PLACE}", Act.INGEST, {200: Answer(text="The recording is known.", headers=_OFFSET)}, problems=(422,)
)
async def recording_offset(request: Admitted) -> web.Response:
    """Ask how many bytes are durable.

    The answer is for the recording that an upload with the same headers would continue. A HEAD may state less than an
    upload: if no recording matches, it describes an unfinished one, which may be another client's.
    """
    vault, tenant = request.vault, request.tenant
    facts, started_at = call_headers(request.http.headers)
    call = Joiner(actor=request.actor, facts=facts, started_at=started_at)
    key, first = call_number(path_call_key(request.http))
    unfinished: IngestSession | None = None
    for name in call_keys(key, first=first):
        found = await vault.call_keys.resolve(tenant, name, here=True)
        if found is None:
            break
        if isinstance(found, IngestSession):
            if await vault.ingest.joining.may(call, found):
                return await _open(vault, found)
            unfinished = unfinished or (None if found.leaving else found)
        elif await vault.ingest.joining.same(call, found):
            return await _ended(vault, found)
    if unfinished is None:
        raise NotFound("nothing was recorded under this call key")
    return await _open(vault, unfinished)


async def _open(vault: Vault, session: IngestSession) -> web.Response:
    return web.Response(headers=_progress(session.recording, await vault.notes.acknowledge(session), "open"))


async def _ended(vault: Vault, row: Recording) -> web.Response:
    if row.state in (RecordingState.SEALED, RecordingState.TRUNCATED):
        known = await finished(vault, row)
        return web.Response(headers=_progress(row, known.received, row.state.value))
    return web.Response(headers=_progress(row, row.stored_bytes, row.state.value))


def _progress(row: Recording, durable: int, state: str) -> dict[str, str]:
    return {
        "Upload-Offset": str(durable),
        "Recording-Id": row.id,
        "Recording-State": state,
        "Recording-Kept-Until": moment(row.retain_until),
        "Cache-Control": "no-store",
    }


@OPERATIONS(
    f"PUT {_PLACE}",
    Act.INGEST,
    _ANSWERS,
    name="putRecording",
    uploads=True,
    headers=_UPLOAD_HEADERS,
    problems=UPLOAD_PROBLEMS,
    asks=True,
)
@OPERATIONS(
    f"POST {_PLACE}",
    Act.INGEST,
    _ANSWERS,
    name="postRecording",
    uploads=True,
    headers=_UPLOAD_HEADERS,
    problems=UPLOAD_PROBLEMS,
    asks=True,
)
async def upload(request: Admitted) -> web.Response:
    """Stream a recording in while the call runs.

    The answer is 201 once every byte is durable, 202 for a piece, and 200 for a repetition of a finished recording.
    """
    said = await _upload(request)
    await ask(request.http, said)
    pieces = BodyPieces(request.http)
    with writing(pieces, patience=LIVE_PATIENCE) as writer:
        return await take(request.vault, said, pieces, writer)


def require_size(request: web.Request) -> None:
    """Raise TooLarge for a body whose declared length is more than a recording may have."""
    limit = request.app[CONFIG].server.max_recording_bytes
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge(f"the recording exceeds {limit} bytes")


async def _upload(admitted: Admitted) -> Upload:
    """Check all headers of the request, before its body is read."""
    request, vault = admitted.http, admitted.vault
    tenant, actor = admitted.tenant, admitted.actor
    call_key = path_call_key(request)
    require_size(request)
    place = placing(request.headers, append="append" in request.query)
    if place.length is not None and place.length != request.content_length:
        raise Invalid("Content-Range and Content-Length do not agree")
    said = request.headers.get("Content-Type")
    declared = parse_content_type(said) if is_declared(said) else None
    facts, started_at = call_headers(request.headers)
    if place.appends:
        joining = Joiner(actor=actor, facts=facts, started_at=started_at, media=declared)
        call_key = await _appended(vault, tenant, call_key, place, joining)
    return Upload(
        tenant=tenant,
        call_key=call_key,
        actor=actor,
        media=lambda first: parse_content_type(said, first),
        declared=declared,
        facts=facts,
        started_at=started_at,
        placing=place,
        dialect=_DIALECT,
        finish_wait=request.app[CONFIG].server.finish_wait.total_seconds(),
    )


async def _appended(vault: Vault, tenant: TenantId, key: str, place: Placing, call: Joiner) -> str:
    """Return the call key under which a client that appends continues or begins.

    Such a client cannot continue after a restart and ignores the answers. So if it begins again under a key that has
    audio, this is a recording of its own, and the pieces that follow belong to the newest recording.
    """
    if place.offset is not None:
        return await _newest(vault, tenant, key, place, call)
    for name, session in vault.ingest.live_calls(tenant, key).items():
        if not session.appended and await vault.ingest.joining.may(call, session):
            return name
    return await vault.call_keys.next_free(tenant, key)


async def _newest(vault: Vault, tenant: TenantId, key: str, place: Placing, call: Joiner) -> str:
    """Return the call key of a stream's newest open recording: its own token's, else one that it may join.

    If all have ended, a piece within the newest belongs to it, and a later piece begins a further recording.
    """
    unended = [(name, each) for name, each in vault.ingest.live_calls(tenant, key).items() if each.ended is None]
    may = vault.ingest.joining.may
    if joined := [name for name, session in unended if await may(call, session)]:
        own = vault.ingest.own_call(tenant, key, call.actor.token_id)
        return joined[-1] if own is None or own.call_key not in joined else own.call_key
    number = await vault.call_keys.newest(tenant, key)
    newest = call_name(key, number)
    known = await last(vault, tenant, newest)
    if known is None or not place.goes_on or (place.offset or 0) < known.received:
        return newest
    return call_name(key, number + 1)
