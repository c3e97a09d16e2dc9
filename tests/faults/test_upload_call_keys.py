"""Several uploads to one call key: one recording, and whoever is wrong is told where to continue."""

import asyncio
import hashlib
import random

import pytest

from tests.helpers.load import CONTENT_TYPE
from tests.helpers.wire import answer, audio, chunk, chunked, head, path, put, wire

pytestmark = pytest.mark.usefixtures("nothing_else_suffers")


async def test_a_second_upload_to_a_call_under_way_is_refused_and_the_first_unharmed(site, server, client, key):
    data = random.randbytes(30_000)
    async with wire(server) as (reader, writer):
        writer.write(chunked(site, key) + chunk(data[:10_000]))
        await asyncio.sleep(0.2)
        assert (await put(client, site, key, random.randbytes(30_000)))[0] == 409
        assert (await put(client, site, key, data))[0] == 409
        durable, _, _ = await head(client, site, key)
        assert (await put(client, site, key, b"x" * 100, **{"Upload-Offset": str(durable)}))[0] == 409
        writer.write(chunk(data[10_000:]) + b"0\r\n\r\n")
        status, _, body = await answer(reader)
    assert (status, body["sha256"]) == (201, hashlib.sha256(data).hexdigest())
    assert await audio(client, site, key) == data


async def test_uploads_that_race_for_one_call_key_give_one_recording(site, client, key):
    bodies = [random.randbytes(40_000) for _ in range(8)]
    answers = await asyncio.gather(*(put(client, site, key, body) for body in bodies))
    assert sorted(status for status, _ in answers) == [201] + [409] * 7
    assert hashlib.sha256(await audio(client, site, key)).hexdigest() in [
        digest for status, digest in answers if status == 201
    ]


async def test_a_finished_call_sent_again_is_200_if_the_same_and_409_if_not(site, client, key):
    data = random.randbytes(30_000)
    digest = hashlib.sha256(data).hexdigest()
    assert await put(client, site, key, data) == (201, digest)
    assert await put(client, site, key, data) == (200, digest)
    assert (await put(client, site, key, data[:-1]))[0] == 409
    assert (await put(client, site, key, data + b"x"))[0] == 409
    assert (await put(client, site, key, b"x" + data[1:]))[0] == 409
    assert await put(client, site, key, b"", **{"Upload-Offset": "30000"}) == (200, digest)
    assert (await put(client, site, key, b"x", **{"Upload-Offset": "30000"}))[0] == 409
    assert (await put(client, site, key, b"", **{"Upload-Offset": "29999"}))[0] == 409
    assert await audio(client, site, key) == data


async def interrupted(site, server, client, key, data):
    """Send `data` and lose the connection; return how much of it is durable: all."""
    async with wire(server) as (_, writer):
        writer.write(chunked(site, key) + chunk(data))
        await writer.drain()
        await asyncio.sleep(0.2)
    for _ in range(500):
        if (await head(client, site, key))[0] == len(data):
            await asyncio.sleep(0.3)  # until the server has seen the connection end
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not durable")


async def test_an_interrupted_call_sent_again_from_its_start_continues(site, server, client, key):
    data = random.randbytes(30_000)
    await interrupted(site, server, client, key, data[:11_111])
    assert await put(client, site, key, data) == (201, hashlib.sha256(data).hexdigest())
    assert await audio(client, site, key) == data


@pytest.mark.parametrize("wrong", ["other bytes", "too short", "offset too small", "offset too large"])
async def test_a_wrong_continuation_is_refused_with_the_right_offset_and_harms_nothing(
    site, server, client, key, wrong
):
    data = random.randbytes(30_000)
    await interrupted(site, server, client, key, data[:11_111])
    bodies = {"other bytes": b"x" + data[1:], "too short": data[:11_110]}
    offsets = {"offset too small": "11110", "offset too large": "11112"}
    headers = {"Upload-Offset": offsets[wrong]} if wrong in offsets else {}
    body = bodies.get(wrong, data[11_111:])
    async with client.put(path(key), data=body, headers=site.auth("recorder", **CONTENT_TYPE, **headers)) as refused:
        assert refused.status == 409
        assert refused.headers["Upload-Offset"] == "11111"
    assert (await head(client, site, key))[0] == 11_111
    rest_of_it = await put(client, site, key, data[11_111:], **{"Upload-Offset": "11111"})
    assert rest_of_it == (201, hashlib.sha256(data).hexdigest())
    assert await audio(client, site, key) == data


async def test_a_continuation_of_nothing_is_refused_with_offset_zero(site, client, key):
    headers = site.auth("recorder", **CONTENT_TYPE, **{"Upload-Offset": "500"})
    async with client.put(path(key), data=b"x" * 100, headers=headers) as refused:
        assert (refused.status, refused.headers["Upload-Offset"]) == (409, "0")
    assert await head(client, site, key) is None
