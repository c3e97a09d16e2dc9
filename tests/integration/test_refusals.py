"""Every refused request leaves one line in the log: whose it was, why, under which id; nothing of the call."""

import asyncio
import io
import json
import logging

import aiohttp
import pytest

from tests.helpers.app import Role, app, furnished, out_of_reach, sound
from tests.helpers.streams import break_off, listener, listening, token_id
from vault.server.refusal_log import LINES, Refusals
from vault.telemetry import JsonFormatter

__all__ = ["app", "furnished"]
SECRET = "call-441632960001"
CALL = f"/v1/ingest/northfield/{SECRET}"


@pytest.fixture
def log():
    """Give what the log says of refusals, line by line as it is written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("vault.server.refusal_log")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(before)
    assert SECRET not in stream.getvalue()
    assert "41632960001" not in stream.getvalue()


def told(line, *, status, problem, dialect, token, tenant):
    named = {name: line[name] for name in ("status", "problem", "dialect", "token", "tenant")}
    return named == {"status": status, "problem": problem, "dialect": dialect, "token": token, "tenant": tenant}


async def test_each_dialect_of_http_says_who_was_refused_and_answers_with_the_id_of_the_line(app, log):
    recorder = token_id(app.token(Role.RECORDER))
    pcmu = {"Content-Type": "no/type"}
    refused = [
        (("PUT", CALL, Role.RECORDER), {"headers": pcmu, "data": b"x"}, 415, "unsupported_media", "http"),
        (("POST", f"{CALL}/pause", Role.RECORDER), {}, 404, "not_found", "http"),
        (
            ("POST", f"{CALL}/siprec", Role.RECORDER),
            {"data": b"x", "headers": {"Content-Encoding": "gzip"}},
            415,
            "unsupported_media",
            "siprec",
        ),
        (
            ("POST", "/v1/ingest/northfield/tus", Role.RECORDER),
            {"headers": {"Tus-Resumable": "9"}},
            412,
            "unsupported_version",
            "tus",
        ),
        (("GET", "/v1/tokens", Role.RECORDER), {}, 403, "forbidden", "api"),
    ]
    for asked, words, status, problem, dialect in refused:
        answer = await app.ask(*asked, **words)
        line = log()[-1]
        assert answer.headers["Request-Id"] == line["request_id"]
        assert answer.status == status, (asked, answer.body)
        assert told(line, status=status, problem=problem, dialect=dialect, token=recorder, tenant="northfield"), line
    assert len(log()) == len(refused)


async def test_a_token_that_is_not_valid_is_named_by_the_id_it_claims_and_no_tenant_is(app, log):
    token = app.token(Role.RECORDER)
    answer = await app.ask("PUT", CALL, token + "x", data=b"x")
    assert answer.status == 401
    [line] = log()
    claimed = token_id(app.token(Role.RECORDER))
    assert told(line, status=401, problem="unauthenticated", dialect="http", token=claimed, tenant=None), line
    assert line["level"] == "warning"
    assert token not in json.dumps(line)


async def test_an_answer_that_is_no_refusal_leaves_no_line(app, log):
    for method, path, who in (
        ("GET", "/healthz", None),
        ("GET", "/v1/recordings", Role.COMPLIANCE),
        ("PUT", CALL, Role.RECORDER),
    ):
        headers = {"Content-Type": "audio/PCMU;rate=8000;channels=1"}
        answer = await app.ask(method, path, who, data=sound(100) if method == "PUT" else None, headers=headers)
        assert answer.status < 300
        assert answer.headers["Request-Id"]
    assert log() == []


async def test_what_the_vault_lacks_is_named_in_the_line(app, log):
    app.clock.slept += app.vault.keyring.lease.total_seconds()
    with out_of_reach(app.vault.keyring._engine._replicas, "survey"):
        answer = await app.ask("PUT", CALL, Role.RECORDER, data=sound(10), headers={"Content-Type": "audio/basic"})
    assert answer.status == 503
    [line] = log()
    assert (line["problem"], line["cause"]) == ("unavailable", "keyring")
    assert answer.json["request_id"] == line["request_id"]


async def test_a_refused_s3_request_is_told_with_the_id_of_its_answer(app, log):
    headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=y"}
    answer = await app.ask("PUT", f"/s3/northfield/{SECRET}", None, data=b"x", headers=headers)
    assert answer.status >= 400
    [line] = log()
    assert line["dialect"] == "s3"
    assert answer.headers["x-amz-request-id"] == line["request_id"]


async def test_a_websocket_that_is_closed_is_told_with_its_close_code_and_the_id_is_in_the_reason(app, log):
    url = f"{app.url}/v1/ingest/northfield/ws?call_key={SECRET}&rate=8000&channels=1"
    async with aiohttp.ClientSession() as client, client.ws_connect(url) as socket:
        header = socket._response.headers["Request-Id"]
        await socket.send_str("no start of anything")
        closed = await socket.receive()
    [line] = log()
    assert line["request_id"] == header
    assert line["close"] == socket.close_code == closed.data
    assert (line["dialect"], line["problem"], line["level"]) == ("audio_stream", "unauthenticated", "warning")
    assert closed.extra.endswith(f" [{header}]")


async def test_a_connection_over_tcp_that_is_refused_is_told_with_the_listeners_token(app, log):
    async with listening(app, audiosocket=listener(app)) as ports:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])
        writer.write(b"\x10\x00\x04abcd")
        assert await reader.read() == b""
        writer.close()
    [line] = log()
    recorder = token_id(app.token(Role.RECORDER))
    assert (line["dialect"], line["tenant"], line["token"]) == ("audiosocket", "northfield", recorder)
    assert len(line["request_id"]) == 16


async def test_what_is_no_http_is_told_too(app, log):
    host, _, port = app.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /" + SECRET.encode() + b" NONSENSE\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    [line] = log()
    assert line["problem"] == "http_400"
    assert f"Request-Id: {line['request_id']}" in answer


async def test_a_flood_of_one_kind_is_counted_and_does_not_hide_another_tenants_first_refusal(app, log):
    for _ in range(LINES + 15):
        await app.ask("GET", "/v1/tokens", Role.RECORDER)
    assert len(log()) == LINES
    await app.ask("GET", "/v1/tokens", Role.RECORDER, tenant="southgate")
    assert len(log()) == LINES + 1
    assert log()[-1]["tenant"] == "southgate"


async def test_what_was_counted_and_not_told_is_told_at_the_end(log):
    refusals = Refusals()
    for _ in range(LINES + 15):
        refusals.note(status=401, problem="unauthenticated", dialect="http")
    await refusals.ended(None)
    assert len(log()) == LINES + 1
    assert (log()[-1]["suppressed"], log()[-1]["problem"]) == (15, "unauthenticated")


async def test_a_recorder_that_breaks_off_is_not_said_to_be_refused(app, log):
    host, _, port = app.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"PUT {CALL} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {app.token(Role.RECORDER)}\r\n"
        "Content-Type: audio/basic\r\nContent-Length: 100\r\n\r\n"
    )
    writer.write(head.encode() + b"\x55" * 50)
    await writer.drain()
    async with asyncio.timeout(5):
        while not app.vault.ingest.uploading:
            await asyncio.sleep(0.01)
        await break_off(writer)
        while app.vault.ingest.uploading:
            await asyncio.sleep(0.01)
    assert log() == []
