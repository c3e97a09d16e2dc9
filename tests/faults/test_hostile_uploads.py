"""Uploads as broken and hostile clients send them, over real sockets: refused or cut off, and nothing else suffers."""

import asyncio
import hashlib
import itertools
import json
import random
import socket
import time
from contextlib import asynccontextmanager

import pytest

from tests.faults.load import CONTENT_TYPE
from tests.faults.server import PURPOSE, TENANT, log_lines, make_site, session, zygote

LIMIT = 100_000
IDLE_SECONDS = 1.0
CLOSED_WITHIN_SECONDS = 14.0
"""The idle timeout, and the ten seconds for which a refused body is still read so that its sender sees the answer."""

_keys = itertools.count(1)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return asyncio.run(
        make_site(
            tmp_path_factory.mktemp("hostile"),
            server={"idle_timeout": "1s", "resume_grace": "1s", "max_recording_bytes": LIMIT},
            segments={"max_age": "300ms"},
        )
    )


@pytest.fixture(scope="module")
def server(site):
    with zygote() as process:
        yield process.start(site)
        # What aiohttp says of requests that it could not parse itself is no defect.
        defects = [
            line
            for line in log_lines(site)
            if not isinstance(line, dict) or (line["level"] == "error" and line["logger"] != "aiohttp.server")
        ]
        assert not defects, "hostile requests reached code that did not expect them"


@pytest.fixture
async def client(server):
    async with session(server) as opened:
        yield opened


@pytest.fixture
def key():
    return f"hostile-{next(_keys)}"


@pytest.fixture(autouse=True)
async def nothing_else_suffers(site, server):
    """Around every test here: the server still takes, keeps and returns a recording, and answers at once."""
    yield
    async with session(server) as opened:
        key, data = f"decent-{next(_keys)}", random.randbytes(3_000)
        began = time.monotonic()
        assert await put(opened, site, key, data) == (201, hashlib.sha256(data).hexdigest())
        assert await audio(opened, site, key) == data
        assert time.monotonic() - began < 5


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
        writer.write(chunked(site, key) + b"".join(chunk(data[at : at + 9_000]) for at in range(0, len(data), 9_000)))
        status, _, body = await answer(reader)
    assert (status, body["title"]) == (413, "too large")
    size, _, _ = await ends_as(client, site, key, "truncated")
    assert size <= LIMIT
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
            async with wire(server) as (reader, writer):
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


async def test_a_compressed_body_that_is_none_is_refused_and_leaves_nothing(site, server, client, key):
    async with wire(server) as (reader, writer):
        lines = ("Content-Type: audio/PCMU;rate=8000;channels=1", "Content-Encoding: gzip", "Content-Length: 5000")
        writer.write(request(site, path(key), *lines) + b"a" * 5000)
        said = await rest(reader)
    assert said[9:12] in (b"", b"400", b"415", b"422")
    assert await head(client, site, key) is None


@pytest.mark.parametrize(
    "line",
    [
        "Upload-Offset: 1e3",
        "Upload-Offset: -1",
        "Upload-Offset: " + "9" * 6_000,
        "Call-Started: yesterday",
        "Call-Started: 2026-01-01T00:00:00",
        "Call-Started: 9999-12-31T23:59:59-23:59",
        "Call-Started: 0001-01-01T00:00:00+23:59",
        "Call-Started: 1970-01-01T00:00:00Z",
        "Call-Started: 2999-01-01T00:00:00Z",
        "Call-Direction: sideways",
        "Call-From: " + "0" * 500,
        "Call-Tags: " + ",".join("abcdefghijklmnopqrstu"),
        "Call-To: \x80\x81",
    ],
)
async def test_unusable_facts_are_refused_and_leave_nothing(site, server, client, key, line):
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


# -- addresses and credentials -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/v1/ingest/{tenant}/..%2f..%2fetc%2fpasswd",
        "/v1/ingest/{tenant}/a%00b",
        "/v1/ingest/{tenant}/%0d%0aX-Injected:%20yes",
        "/v1/ingest/{tenant}/" + "k" * 201,
        "/v1/ingest/{tenant}/%ff%fe",
        "/v1/ingest/{tenant}/caf%c3%a9",
        "/v1/ingest/{tenant}/%",
        "/v1/ingest/{tenant}/",
        "/v1/ingest/{tenant}/a/b",
        "/v1/ingest/Northfield/k",
        "/v1/ingest/..%2f{tenant}/k",
        "/v1/ingest/{tenant}%2f..%2fother/k",
        "/v1/ingest/other/k",
        "/v1/ingest/'%3b--/k",
        "/v1/ingest/" + "t" * 64 + "/k",
        "//v1/ingest/{tenant}/k",
        "http://elsewhere/v1/ingest/other/k",
    ],
)
async def test_junk_addresses_record_nothing(site, server, client, target):
    before = await listed(client, site)
    async with wire(server) as (reader, writer):
        lines = ("Content-Type: audio/PCMU;rate=8000;channels=1", "Content-Length: 500", "Connection: close")
        writer.write(request(site, target.format(tenant=TENANT), *lines) + b"a" * 500)
        said = await rest(reader)
    assert said[9:12] in (b"400", b"403", b"404", b"422"), said[:200]
    assert b"njected" not in said.partition(b"\r\n\r\n")[0]
    assert await listed(client, site) == before


async def listed(client, site):
    async with client.get("/v1/recordings?limit=1000", headers=site.auth("agent")) as found:
        return [row["id"] for row in (await found.json())["recordings"]]


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "Bearer",
        "Bearer nonsense",
        "Bearer cv_" + "0" * 32 + "_secret",
        "Bearer cv_\xff\xfe_secret",
        "Basic !!!",
        "Basic \xff\xfe",
        "Basic " + "QQ==",
        "Digest username=x",
    ],
)
async def test_a_bad_credential_gets_401_before_100_and_no_body_is_read(site, server, client, key, credential):
    lines = [f"PUT {path(key)} HTTP/1.1", "Host: vault", "Expect: 100-continue", "Content-Length: 50000"]
    lines += ["Content-Type: audio/PCMU;rate=8000;channels=1"] + (
        [f"Authorization: {credential}"] if credential else []
    )
    async with wire(server) as (reader, writer):
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        status, headers, body = await answer(reader)
        assert status == 401, body
        assert headers["connection"] == "close"
        writer.write(b"a" * 50_000)
        assert await rest(reader) == b""
    assert await head(client, site, key) is None


async def test_another_tenants_or_roles_token_is_refused_before_100(site, server, client, key):
    elsewhere = f"/v1/ingest/southfield/{key}"
    for role, target, refusal in (("agent", path(key), 403), ("operator", path(key), 403), ("recorder", elsewhere, 404)):
        async with wire(server) as (reader, writer):
            writer.write(request(site, target, "Expect: 100-continue", "Content-Length: 500", token=site.tokens[role]))
            status, _, _ = await answer(reader)
        assert status == refusal, role
    assert await head(client, site, key) is None


async def test_a_good_token_gets_100_then_201(site, server, client, key):
    data = random.randbytes(5_000)
    async with wire(server) as (reader, writer):
        content = "Content-Type: audio/PCMU;rate=8000;channels=1"
        writer.write(request(site, path(key), content, "Expect: 100-continue", "Content-Length: 5000"))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(data)
        status, _, body = await answer(reader)
    assert (status, body["sha256"]) == (201, hashlib.sha256(data).hexdigest())


# -- one call key, several uploads -------------------------------------------------------------------------------


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
    for _ in range(20):
        if (await head(client, site, key))[0] == len(data):
            await asyncio.sleep(0.05)  # until the server has seen the connection end
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
