"""Requests of S3 clients, one at a time, for tests that look at every answer."""

import asyncio
import hashlib
import xml.etree.ElementTree as ET

import pytest

from tests.helpers.app import sound
from tests.helpers.s3clients import BUCKET, HEAD, Recorder, signed
from vault.model import Role

WAV = HEAD + sound(70_000)


MD5 = hashlib.md5(WAV).hexdigest()


@pytest.fixture
def recorder(app):
    return Recorder.of(app.url, app.token(Role.RECORDER))


async def ask(app, recorder, method, path, *, body=b"", sent=None, headers=None, **signing):
    """Send a request as it was signed for `body`, with `sent` in the body's place."""
    signed_headers = headers if headers is not None else signed(recorder, method, path, body=body, **signing)
    data = body if sent is None else sent
    async with app.client.request(method, path, data=data or None, headers=signed_headers) as answer:
        return answer.status, await answer.read(), answer.headers


def code(document):
    return ET.fromstring(document).findtext("Code")


async def refused(app, recorder, method, path, **arguments):
    status, document, _ = await ask(app, recorder, method, path, **arguments)
    return status, code(document)


async def keys(app):
    """Return each recording's call key with its state and size."""
    await asyncio.gather(*(session.done.wait() for session in app.vault.ingest._by_id.values() if session.ended))
    found = {}
    for each in (await app.ask("GET", "/v1/recordings")).json["recordings"]:
        shown = (await app.ask("GET", f"/v1/recordings/{each['id']}")).json
        found[shown["call"]["call_key"]] = (shown["state"], shown["bytes"])
    return found


async def begun(app, recorder, key="call.wav"):
    _, document, _ = await ask(app, recorder, "POST", f"/s3/{BUCKET}/{key}?uploads")
    return f"/s3/{BUCKET}/{key}?uploadId=" + ET.fromstring(document).findtext("{*}UploadId")


def part(address, number):
    path, _, upload = address.partition("?")
    return f"{path}?partNumber={number}&{upload}"


def listing(*parts):
    body = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n, etag in parts)
    return f"<CompleteMultipartUpload>{body}</CompleteMultipartUpload>".encode()
