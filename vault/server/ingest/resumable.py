"""What the adapters of tus and of the IETF's resumable uploads share: addresses, reading the body, and the end."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from aiohttp import web

from vault.errors import TooLarge, UnsupportedMedia
from vault.ids import RecordingId, TenantId
from vault.media.descriptor import parse_content_type
from vault.model import Media
from vault.protocol.uploads.resumable import Description, content_type
from vault.server.context import CONFIG, VAULT, checked_id, go_on
from vault.server.ingest.body import Incoming, writing
from vault.services.ingest.sessions import IngestSession
from vault.services.uploads.resumable import SILENT_SECONDS, Writer

_HOST: Final = re.compile(r"[A-Za-z0-9.\-_:\[\]]{1,255}")


def path_upload(request: web.Request) -> RecordingId:
    """Return the upload in the path; NotFound if it cannot be an upload."""
    return RecordingId(checked_id(request.match_info["upload"], "rec", "upload"))


def location(request: web.Request, tenant: TenantId, upload: RecordingId) -> str:
    """Return the upload's address: absolute, because clients expect that.

    It begins with `server.public_url`, else with the host name that the client used.
    """
    base = request.app[CONFIG].server.public_url
    if base is None:
        base = f"{request.scheme}://{request.host}" if _HOST.fullmatch(request.host) else ""
    return f"{base}/v1/ingest/{tenant}/tus/{upload}"


def expires(at: datetime) -> str:
    """Return an instant in HTTP's format (RFC 9110 section 5.6.7)."""
    return format_datetime(at, usegmt=True)


@contextmanager
def incoming(request: web.Request) -> Iterator[tuple[Incoming, Writer]]:
    """Ask for the request's body and read it, until another request to the same upload ends this one."""
    go_on(request)
    body = Incoming(request)
    with writing(body, patience=SILENT_SECONDS) as writer:
        yield body, writer


async def receive(request: web.Request, session: IngestSession, body: Incoming, *, dialect: str) -> None:
    """Write the rest of the body into the recording; bytes beyond the announced length are refused and not kept.

    If the request breaks off, what came is kept and becomes durable: an upload can continue at any byte.
    """
    vault = request.app[VAULT]
    began = session.appended
    try:
        while piece := await body.next():
            if session.total is not None and session.sent + len(piece) > session.total:
                raise TooLarge(f"more bytes came than the {session.total} announced; what is beyond was not kept")
            if not vault.ingest.take(session, piece):
                await vault.ingest.write(session, piece)
    finally:
        vault.metrics.ingest_bytes.labels(dialect).inc(max(session.appended - began, 0))


@asynccontextmanager
async def begun(request: web.Request, session: IngestSession, writer: Writer, *, new: bool) -> AsyncIterator[None]:
    """Become the writer of an upload just created, or joined because its client had created it before."""
    uploads = request.app[VAULT].uploads
    async with uploads.started(session, writer) if new else uploads.held(session, writer):
        yield


async def media_in(description: Description, body: Incoming | None) -> Media:
    """Return the upload's media, from the first bytes of `body` if nothing else states it; UnsupportedMedia."""
    declared = content_type(description)
    first = b"" if declared is not None or body is None else await body.first()
    if declared is None and not first:
        raise UnsupportedMedia(
            "nothing says what kind of audio the upload will be",
            hint="send the metadata filetype, such as audio/wav, or a filename with an extension such as .wav",
        )
    return parse_content_type(declared, first)
