"""Uploads as broken and hostile clients send them, over real sockets: refused or cut off, and nothing else suffers."""

import asyncio
import gzip
import hashlib
import itertools
import random
import socket
import time

import pytest

from tests.helpers.wire import (
    IDLE_SECONDS,
    LIMIT,
    answer,
    audio,
    chunk,
    chunked,
    ends_as,
    head,
    path,
    put,
    request,
    rest,
    wire,
)

pytestmark = pytest.mark.usefixtures("nothing_else_suffers")


# -- framing ----------------------------------------------------------------------------------------------------


async def test_malformed_chunks_end_the_upload_at_the_last_good_byte_and_its_connection(site, server, client, key):
    garbage = [
        b"zz\r\nxx\r\n",
        b"-5\r\nhello\r\n",
        b"f" * 18 + b"\r\n",
        b"5\r\nhelloworld\r\n",
        b"5hello",
        b"\0\0\0\0\r\n",
    ]

    async def attempt(name, junk, before):
        good = random.randbytes(before)
        async with wire(server) as (reader, writer):
            writer.write(chunked(site, name) + (chunk(good) if good else b""))
            await writer.drain()
            await asyncio.sleep(0.2)
            writer.write(junk)
            said = await rest(reader)
        assert b" 201 " not in said, junk
        if await head(client, site, name) is None:
            assert not before
            return
        await ends_as(client, site, name, "truncated")
        kept = await audio(client, site, name)
        assert kept[:before] == good, junk
        assert kept[before:] in (b"", b"hello"), junk  # five good bytes that no CRLF follows

    async with asyncio.TaskGroup() as group:
        for number, (junk, before) in enumerate(itertools.product(garbage, [0, 5_000])):
            group.create_task(attempt(f"{key}-{number}", junk, before))


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: -1",),
        ("Content-Length: 5x",),
        ("Content-Length: 99999999999999999999999999",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    ],
)
async def test_contradictory_lengths_record_nothing(site, server, client, key, lines):
    async with wire(server) as (reader, writer):
        writer.write(request(site, path(key), "Content-Type: audio/PCMU;rate=8000;channels=1", *lines) + b"hello")
        writer.write_eof()
        said = await rest(reader)
    assert said[:12] in (b"", b"HTTP/1.0 400", b"HTTP/1.1 400", b"HTTP/1.1 413")
    assert await head(client, site, key) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 4_000,
        b"PUT\r\n\r\n",
        b"\r\n" * 2_000,
    ],
)
async def test_what_is_not_http_is_closed(server, data):
    async with wire(server) as (reader, writer):
        writer.write(data)
        said = await rest(reader)
    assert b" 20" not in said[:13]


async def test_trailers_beyond_64_kib_end_the_upload_with_what_came_and_the_answer_says_the_limit(
    site, server, client, key
):
    async with wire(server) as (reader, writer):
        writer.write(chunked(site, key) + chunk(b"x" * 400))
        while (found := await head(client, site, key)) is None or not found[0]:
            await asyncio.sleep(0.01)
        writer.write(b"0\r\n")
        for number in range(4):
            writer.write(b"x-%d: " % number + b"t" * 20_000 + b"\r\n")
            await writer.drain()
        status, headers, body = await answer(reader)
    assert (status, body["title"], headers["connection"]) == (413, "too large", "close")
    assert "64 KiB" in body["detail"]
    assert await ends_as(client, site, key, "truncated")
    assert await audio(client, site, key) == b"x" * 400


async def test_trailers_below_the_limit_are_ignored_and_the_upload_is_whole(site, server, client, key):
    async with wire(server) as (reader, writer):
        writer.write(chunked(site, key) + chunk(b"x" * 400) + b"0\r\n")
        for number in range(3):
            writer.write(b"x-%d: " % number + b"t" * 15_000 + b"\r\n")
            await writer.drain()
        writer.write(b"\r\n")
        status, _, _ = await answer(reader)
    assert status == 201
    assert await audio(client, site, key) == b"x" * 400


async def test_a_body_that_arrives_in_the_pieces_of_the_one_before_it_has_no_trailers(site, server, client, key):
    piece = random.randbytes(40_000)
    declared = ("Content-Type: audio/PCMU;rate=8000;channels=1", f"Content-Length: {2 * len(piece)}")
    async with wire(server) as (reader, writer):
        for name in (f"{key}-{number}" for number in range(4)):
            writer.write(request(site, path(name), *declared) + piece)
            await asyncio.sleep(0.1)  # so that half of each body is what had arrived of the one before, too
            writer.write(piece)
            status, _, _ = await answer(reader)
            assert status == 201
            assert await audio(client, site, name) == 2 * piece


# -- size -------------------------------------------------------------------------------------------------------


async def test_a_declared_length_beyond_the_limit_is_refused_before_its_body(site, server, client, key):
    async with wire(server) as (reader, writer):
        writer.write(
            request(site, path(key), "Content-Type: audio/PCMU;rate=8000;channels=1", f"Content-Length: {LIMIT + 1}")
        )
        status, headers, body = await answer(reader)
    assert (status, body["title"]) == (413, "too large")
    assert headers["connection"] == "close"
    assert await head(client, site, key) is None


async def test_a_chunked_body_beyond_the_limit_keeps_a_playable_prefix_within_it(site, server, client, key):
    data = random.randbytes(LIMIT * 2)
    async with wire(server) as (reader, writer):
        chunks = [chunk(data[at : at + 9_000]) for at in range(0, len(data), 9_000)]
        writer.write(chunked(site, key) + chunks[0])
        while (found := await head(client, site, key)) is None or not found[0]:
            await asyncio.sleep(0.01)
        writer.write(b"".join(chunks[1:]))
        status, _, body = await answer(reader)
    assert (status, body["title"]) == (413, "too large")
    size, _, _ = await ends_as(client, site, key, "truncated")
    assert 0 < size <= LIMIT
    assert await audio(client, site, key) == data[:size]


async def test_a_recording_of_exactly_the_limit_is_taken(site, client, key):
    data = random.randbytes(LIMIT)
    assert (await put(client, site, key, data))[0] == 201
    assert await audio(client, site, key) == data


@pytest.mark.parametrize("where", ["name", "value", "many", "target"])
async def test_gigantic_request_heads_are_refused(site, server, client, key, where):
    big = "x" * 70_000
    lines = {"name": (f"{big}: 1",), "value": (f"Call-Tags: {big}",), "many": [f"X-{n}: {n}" for n in range(20_000)]}
    target = path(key) + ("?" + big if where == "target" else "")
    async with wire(server) as (reader, writer):
        writer.write(request(site, target, "Content-Length: 5", *lines.get(where, ())) + b"hello")
        said = await rest(reader)
    assert said[:12] in (b"", b"HTTP/1.0 400", b"HTTP/1.1 400", b"HTTP/1.1 431")
    assert await head(client, site, key) is None


# -- time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"", b"PUT /v1/ing", b"PUT /x HTTP/1.1\r\nHost: vault\r\nX-A: "])
async def test_a_request_head_that_never_ends_is_closed(server, start):
    began = time.monotonic()
    async with wire(server) as (reader, writer):

        async def drip():
            writer.write(start)
            while start:
                await asyncio.sleep(0.2)
                writer.write(b"a")

        dripping = asyncio.create_task(drip())
        said = await rest(reader, seconds=10)
        dripping.cancel()
    assert b" 20" not in said[:13]
    assert time.monotonic() - began < 8


async def test_a_body_that_goes_quiet_is_answered_408_and_its_bytes_stay(site, server, client, key):
    data = random.randbytes(7_000)
    began = time.monotonic()
    async with wire(server) as (reader, writer):
        writer.write(chunked(site, key) + chunk(data))
        status, headers, body = await answer(reader, seconds=6)
        assert (status, body["title"], headers["connection"]) == (408, "upload stalled", "close")
        assert IDLE_SECONDS * 0.9 < time.monotonic() - began < 4
    await ends_as(client, site, key, "truncated")
    assert await audio(client, site, key) == data


async def test_a_body_that_never_begins_is_answered_408_and_leaves_nothing(site, server, client, key):
    async with wire(server) as (reader, writer):
        writer.write(chunked(site, key))
        status, _, _ = await answer(reader, seconds=6)
    assert status == 408
    assert await head(client, site, key) is None


async def test_a_slow_body_that_keeps_coming_is_a_call(site, server, client, key):
    data = random.randbytes(60)
    async with wire(server) as (reader, writer):
        writer.write(chunked(site, key))
        for byte in range(0, len(data), 20):
            writer.write(chunk(data[byte : byte + 20]))
            await asyncio.sleep(IDLE_SECONDS * 0.6)
        writer.write(b"0\r\n\r\n")
        status, _, body = await answer(reader)
    assert (status, body["sha256"]) == (201, hashlib.sha256(data).hexdigest())


async def test_many_stalled_connections_do_not_keep_others_out(site, server, client, key):
    async with asyncio.TaskGroup() as group:

        async def stall(number):
            async with wire(server) as (_, writer):
                writer.write(chunked(site, f"{key}-{number}") + chunk(b"x" * 400))
                await asyncio.sleep(0.5)

        for number in range(150):
            group.create_task(stall(number))
        await asyncio.sleep(0.2)
        assert (await put(client, site, key, b"y" * 400))[0] == 201


# -- connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "reset", "half"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_connection_lost_in_the_body_keeps_exactly_what_arrived(site, server, client, key, how, framing):
    data = random.randbytes(20_000)
    async with wire(server) as (reader, writer):
        if framing == "chunked":
            writer.write(chunked(site, key) + chunk(data))
        else:
            content = "Content-Type: audio/PCMU;rate=8000;channels=1"
            writer.write(request(site, path(key), content, "Content-Length: 50000") + data)
        await writer.drain()
        await asyncio.sleep(0.3)
        match how:
            case "fin":
                writer.close()
            case "half":
                writer.write_eof()
                assert b" 201 " not in await rest(reader)
            case _:
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await ends_as(client, site, key, "truncated")
    assert await audio(client, site, key) == data


async def test_a_client_that_leaves_after_its_whole_body_has_recorded_it(site, server, client, key):
    data = random.randbytes(20_000)
    async with wire(server) as (_, writer):
        writer.write(chunked(site, key) + chunk(data) + b"0\r\n\r\n")
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(0.2)
    await ends_as(client, site, key, "sealed")
    assert await audio(client, site, key) == data


# -- content ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "audio/", "audio/PCMU;rate=x", "\x7f"])
async def test_an_unusable_content_type_is_refused_and_leaves_nothing(site, server, client, key, kind):
    async with wire(server) as (reader, writer):
        writer.write(request(site, path(key), f"Content-Type: {kind}", "Content-Length: 5000") + b"a" * 5000)
        status, _, _ = await answer(reader)
    assert status in (400, 415, 422)
    assert await head(client, site, key) is None


async def test_a_missing_or_empty_body_is_refused_and_leaves_nothing(site, server, client, key):
    assert await put(client, site, key, b"") == (422, "invalid")
    async with wire(server) as (reader, writer):
        writer.write(request(site, path(key), "Content-Type: audio/PCMU;rate=8000;channels=1"))
        status, _, _ = await answer(reader)
    assert status == 422
    async with wire(server) as (reader, writer):
        writer.write(chunked(site, key) + b"0\r\n\r\n")
        status, _, _ = await answer(reader)
    assert status == 422
    assert await head(client, site, key) is None


@pytest.mark.parametrize("body", [b"a" * 5000, gzip.compress(b"a" * 5000, mtime=0)], ids=["plain", "compressed"])
async def test_a_compressed_body_is_refused_and_leaves_nothing(site, server, client, key, body):
    async with wire(server) as (reader, writer):
        lines = (
            "Content-Type: audio/PCMU;rate=8000;channels=1",
            "Content-Encoding: gzip",
            f"Content-Length: {len(body)}",
        )
        writer.write(request(site, path(key), *lines) + body)
        status, _, _ = await answer(reader)
    assert status == 415
    assert await head(client, site, key) is None


@pytest.mark.parametrize(
    "line",
    [
        "Upload-Offset: 1e3",
        "Upload-Offset: -1",
        "Upload-Offset: " + "9" * 6_000,
    ],
)
async def test_an_unusable_offset_is_refused_and_leaves_nothing(site, server, client, key, line):
    async with wire(server) as (reader, writer):
        head_bytes = request(site, path(key), "Content-Type: audio/PCMU;rate=8000;channels=1", "Content-Length: 500")
        writer.write(head_bytes[:-2] + line.encode("latin-1") + b"\r\n\r\n" + b"a" * 500)
        status, _, _ = await answer(reader)
    assert status in (400, 409, 422)
    assert await head(client, site, key) is None


@pytest.mark.parametrize(
    "line",
    [
        "Call-From: 1\r\n\tfolded: yes",
        "Call-From: 1\rX-Injected: yes",
        "Call-From: 1\nX-Injected: yes",
        "Call-From: a\0b",
        "Call From: 1",
        ": empty",
    ],
)
async def test_injected_headers_never_come_back(site, server, client, key, line):
    async with wire(server) as (reader, writer):
        head_bytes = request(site, path(key), "Content-Type: audio/PCMU;rate=8000;channels=1", "Content-Length: 500")
        writer.write(head_bytes[:-2] + line.encode() + b"\r\n\r\n" + b"a" * 500)
        writer.write_eof()
        said = await rest(reader)
    assert b"njected" not in said.partition(b"\r\n\r\n")[0]
    if b" 201 " not in said:
        assert await head(client, site, key) is None
