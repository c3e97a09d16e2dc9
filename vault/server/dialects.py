"""Every way in: the routes on which recorders write, and their operations as data."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from vault.protocol.httpsignatures import Nonces
from vault.protocol.permissions import Act
from vault.server import audiohook, ingest, tus, websocket
from vault.server.describing import Answer, Operation
from vault.server.describing import json_answer as _json

_OFFSET: Final = {
    "Upload-Offset": "Bytes that are durable.",
    "Recording-Id": "The recording's id.",
    "Recording-State": "open, sealed or truncated.",
}
_UPLOAD_HEADERS: Final = ("Upload-Offset", "Call-From", "Call-To", "Call-Direction", "Call-Started", "Call-Tags")
_UPLOADED: Final = {
    201: _json("Every byte is durable. `open`: the object store still has to catch up.", "Receipt", Location="URL"),
    200: _json("The same audio was recorded under this call key before.", "Receipt", Location="URL"),
}
_UPLOAD_PROBLEMS: Final = (404, 408, 409, 413, 415, 422, 507)

HTTP: Final = (
    *(
        Operation(
            method=method,
            path="/v1/ingest/{tenant}/{call_key}",
            name=name,
            tag="ingest",
            summary="Stream a recording in while the call runs",
            act=Act.INGEST,
            uploads=True,
            headers=_UPLOAD_HEADERS,
            answers=_UPLOADED,
            problems=_UPLOAD_PROBLEMS,
        )
        for method, name in (("put", "putRecording"), ("post", "postRecording"))
    ),
    Operation(
        method="head",
        path="/v1/ingest/{tenant}/{call_key}",
        name="recordingOffset",
        tag="ingest",
        summary="Ask how many bytes are durable",
        act=Act.INGEST,
        answers={200: Answer(text="The recording is known.", headers=_OFFSET)},
        problems=(404, 422),
    ),
)

OPERATIONS: Final = (*websocket.OPERATIONS, *audiohook.OPERATIONS, *tus.OPERATIONS, *HTTP)


def add_routes(app: web.Application) -> None:
    """Route every dialect; call keys come last, because the other dialects' names are none."""
    app[audiohook.NONCES] = Nonces()
    router = app.router
    router.add_get("/v1/ingest/{tenant}/ws", websocket.connect)
    router.add_get("/v1/ingest/{tenant}/audiohook", audiohook.connect)
    tus.add_routes(app)
    for method in ("PUT", "POST"):
        router.add_route(method, "/v1/ingest/{tenant}/{call_key}", ingest.upload, expect_handler=ingest.expect)
    router.add_route("HEAD", "/v1/ingest/{tenant}/{call_key}", ingest.head)
