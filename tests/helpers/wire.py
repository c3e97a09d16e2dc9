"""Uploads spoken over bare sockets, and what the server says to them."""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager

from tests.helpers.load import CONTENT_TYPE
from tests.helpers.server import PURPOSE, TENANT

LIMIT = 100_000
IDLE_SECONDS = 1.0
CLOSED_WITHIN_SECONDS = 14.0
"""The idle timeout, and the ten seconds for which a refused body is still read so that its sender sees the answer."""

_keys = itertools.count(1)


def fresh(what):
    """Return a call key that no test has used."""
    return f"{what}-{next(_keys)}"


def path(key):
    return f"/v1/ingest/{TENANT}/{key}"


async def put(client, site, key, data, **headers):
    async with client.put(path(key), data=data, headers=site.auth("recorder", **CONTENT_TYPE, **headers)) as answer:
        body = await answer.json(content_type=None)
        return answer.status, body.get("sha256", body.get("title"))


async def head(client, site, key):
    """Return (durable bytes, state, recording id), None if nothing is known under the key."""
    async with client.head(path(key), headers=site.auth("recorder")) as answer:
        if answer.status == 404:
            return None
        assert answer.status == 200
        return (
            int(answer.headers["Upload-Offset"]),
            answer.headers["Recording-State"],
            answer.headers["Recording-Id"],
        )


async def audio(client, site, key):
    _, _, recording = await head(client, site, key)
    url = f"/v1/recordings/{recording}/audio?format=raw"
    async with client.get(url, headers=site.auth("agent", **PURPOSE)) as answer:
        assert answer.status == 200
        return await answer.read()


async def ends_as(client, site, key, state, *, seconds=6):
    for _ in range(int(seconds / 0.1)):
        found = await head(client, site, key)
        if found[1] != "open":
            assert found[1] == state
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"{key} is still open")


def request(site, target, *headers, method="PUT", token=None):
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: vault",
        f"Authorization: Bearer {token or site.tokens['recorder']}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def chunked(site, key):
    return request(site, path(key), "Content-Type: audio/PCMU;rate=8000;channels=1", "Transfer-Encoding: chunked")


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def wire(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def rest(reader, *, seconds=CLOSED_WITHIN_SECONDS):
    """Return what comes until the server closes; fails if it does not."""
    try:
        async with asyncio.timeout(seconds):
            return await reader.read()
    except ConnectionError:
        return b""


async def answer(reader, *, seconds=5):
    """Return the status, headers and JSON body of one answer."""
    async with asyncio.timeout(seconds):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    try:
        return int(lines[0].split()[1]), headers, json.loads(body)
    except ValueError:
        return int(lines[0].split()[1]), headers, body
