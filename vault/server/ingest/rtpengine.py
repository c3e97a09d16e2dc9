"""rtpengine-recording's notifications: a finished file in a form, or an event without a file."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from aiohttp import web

from vault.access.permissions import Act
from vault.errors import Invalid
from vault.ids import TenantId, TokenId, call_name
from vault.media.descriptor import parse_content_type
from vault.model import Recording, RecordingState
from vault.protocol.uploads.http_put import Placing
from vault.protocol.uploads.multipart import (
    FIELD,
    Closed,
    Multipart,
    PartBegan,
    PartData,
    PartEnded,
    boundary_of,
    event_name,
    notification,
)
from vault.server.context import CONFIG, VAULT, admitted, go_on, path_tenant, small_body
from vault.server.ingest.body import BodyPieces, Source, writing
from vault.server.ingest.http import UPLOAD_PROBLEMS, UPLOADED, ask, require_size
from vault.server.ingest.uploading import Upload, take
from vault.server.operation import Answer, Operations
from vault.services.audit import event
from vault.services.ingest.live import LIVE_PATIENCE
from vault.services.ingest.open_rows import Joiner
from vault.services.vault import Vault

_DIALECT: Final = "rtpengine"
_GRACE: Final = timedelta(hours=1)
"""A daemon waits 5 s before it sends a file again, doubling the wait up to 10 times: 2,560 s before the last."""
_SENDS: Final = "set output-storage = notify in rtpengine-recording.conf"
_MAX_EVENT_BYTES: Final = 1 << 16
_NOTED: Final = {204: Answer(text="The event is in the audit trail, without its call.")}

OPERATIONS: Final = Operations("ingest")


@OPERATIONS.raw(
    "POST /v1/ingest/{tenant}/rtpengine",
    Act.INGEST,
    {**UPLOADED, **_NOTED},
    name="notifyRecording",
    summary="Take a finished file from rtpengine-recording (output-storage = notify), or note its event",
    problems=UPLOAD_PROBLEMS,
    asks=True,
)
@OPERATIONS.raw("GET /v1/ingest/{tenant}/rtpengine", Act.INGEST, _NOTED, problems=(422,), asks=True, heads=False)
async def notify_event(request: web.Request) -> web.StreamResponse:
    """Note an event of rtpengine-recording; an event with a file is an upload.

    The daemon sends it again after any answer except 2xx.
    """
    if not _has_file(request):
        return await _note(request)
    said = await _upload(request)
    await ask(request, said)
    body = BodyPieces(request)
    file = _FilePieces(body, boundary_of(request.headers["Content-Type"]))
    with writing(body, patience=LIVE_PATIENCE) as writer:
        return await take(request.app[VAULT], said, file, writer)


def _has_file(request: web.Request) -> bool:
    return request.method == "POST" and request.content_type == "multipart/form-data"


async def _note(request: web.Request) -> web.Response:
    recorder = await admitted(request, Act.INGEST)
    go_on(request)
    too_large = Invalid("the event's body is too large for an event", hint=_SENDS)
    await small_body(request, limit=_MAX_EVENT_BYTES, too_large=too_large)
    detail = {"dialect": _DIALECT, "event": event_name(request.headers)}
    await recorder.vault.trail.note(event("recorder.event", recorder.actor, tenant=recorder.tenant, detail=detail))
    return web.Response(status=204)


async def _upload(request: web.Request) -> Upload:
    """Read the notification's headers before its body."""

    async def began(token: TokenId) -> bool:
        try:
            key = notification(request.headers).call_key
            return await request.app[VAULT].begun.call(token, path_tenant(request), key)
        except Invalid:
            return False

    recorder = await admitted(request, Act.INGEST, began=began)
    require_size(request)
    boundary_of(request.headers["Content-Type"])
    said = notification(request.headers)
    media = parse_content_type(said.content_type)
    vault, tenant, actor = recorder.vault, recorder.tenant, recorder.actor
    joining = Joiner(actor=actor, facts=said.facts, started_at=said.started_at, media=media)
    return Upload(
        tenant=tenant,
        call_key=await _call_key(vault, tenant, said.call_key, joining),
        actor=actor,
        media=lambda _: media,
        declared=media,
        facts=said.facts,
        started_at=said.started_at,
        placing=Placing(),
        dialect=_DIALECT,
        finish_wait=request.app[CONFIG].server.finish_wait.total_seconds(),
        grace=_GRACE,
    )


async def _call_key(vault: Vault, tenant: TenantId, key: str, call: Joiner) -> str:
    """Return the call key for a file: its own, or a further one if a broken attempt to send it was closed.

    Recordings that the file may not join are skipped. The daemon may repeat a file after the grace period of its first
    attempt. The file must not be refused for its name then, because the daemon would give it up.
    """
    for name, session in vault.ingest.live_calls(tenant, key).items():
        if (session.ending or "").partition(":")[0] == RecordingState.TRUNCATED.value:
            continue
        if await vault.ingest.joining.may(call, session):
            return name
    number = await vault.call_keys.newest(tenant, key)
    newest = call_name(key, number)
    row = await vault.call_keys.resolve(tenant, newest)
    if row is None:
        return newest
    if (
        isinstance(row, Recording)
        and row.state is not RecordingState.TRUNCATED
        and await vault.ingest.joining.same(call, row)
    ):
        return newest
    return call_name(key, number + 1)


class _FilePieces(Source):
    """The pieces of the file inside a form; a form without its closing boundary is an error."""

    def __init__(self, body: BodyPieces, boundary: bytes) -> None:
        super().__init__()
        self._body = body
        self._form = Multipart(boundary)
        self._inside = False
        self._found = False
        self._closed = False

    async def more(self) -> bytes:
        """Return further bytes of the file, or b"" once the form is complete."""
        while not self._closed:
            received = await self._body.next()
            if not received:
                self._form.close()
                break
            if data := self._file_bytes(received):
                return data
        await self._rest()
        return b""

    def _file_bytes(self, received: bytes) -> bytes:
        file = []
        for each in self._form.receive(received):
            match each:
                case PartBegan() if each.name == FIELD:
                    if self._found:
                        raise Invalid("the form has more than one file")
                    self._inside = self._found = True
                case PartEnded():
                    self._inside = False
                case PartData() if self._inside:
                    file.append(each.data)
                case Closed():
                    self._closed = True
        return b"".join(file)

    async def _rest(self) -> None:
        """Read any bytes after the form, so that the connection can be used again."""
        while await self._body.next():
            pass
        if not self._found:
            raise Invalid(f"the form has no file named {FIELD}", hint=_SENDS)
