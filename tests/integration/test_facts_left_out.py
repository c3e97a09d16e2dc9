"""A fact that cannot be used never costs the audio: it is left out, told, counted and in the audit trail."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress

import pytest

from tests.helpers.app import PCMU, PURPOSE, TENANTS, App, app, sound
from tests.helpers.s3clients import Recorder
from vault.model import Role
from vault.protocol.facts.stated import KINDS, Unusable

__all__ = ["app"]

TENANT = TENANTS[0]
AUDIO = sound(800)
TYPE = ("filetype", PCMU.encode())


async def call(app: App, recording: str) -> dict[str, object]:
    return (await app.ask("GET", f"/v1/recordings/{recording}", Role.AGENT, headers=PURPOSE)).json["call"]


async def counted(app: App) -> dict[tuple[str, str], float]:
    found = {}
    for metric in app.vault.metrics.facts_left_out.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                found[sample.labels["fact"], sample.labels["reason"]] = sample.value
    return found


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("Call-Started", "yesterday", "Call-Started (value)"),
        ("Call-Started", "2026-01-01T00:00:00", "Call-Started (value)"),
        ("Call-Direction", "internal", "Call-Direction (value)"),
        ("Call-From", "0" * 201, "Call-From (text)"),
        ("Call-Tags", ",".join("abcdefghijklmnopqrstu"), "Call-Tags (many)"),
        ("Call-Fron", "+441632960001", "Call-Fron (unknown)"),
    ],
)
async def test_an_unusable_header_is_left_out_and_told(app, name, value, told):
    recording = await app.upload("call-1", AUDIO, headers={"Call-To": "201", name: value})
    found = await call(app, recording)
    assert (found["called"], found["facts_left_out"]) == ("201", told)
    assert (await app.play(recording)).body == AUDIO
    [entry] = [each for each in await app.audit("recording.started") if each["target"] == recording]
    kind = told.partition(" ")[0].removeprefix("Call-").lower()
    kind = kind if kind in KINDS else "other"
    assert entry["detail"]["facts_left_out"] == kind
    reason = told.rpartition("(")[2].removesuffix(")")
    counts = await counted(app)
    assert counts.pop((kind, reason)) == 1
    assert set(counts.values()) == {0}
    assert len(counts) + 1 == len(KINDS) * len(Unusable)


async def sent(app: App, key: str, *headers: str, method: str = "PUT") -> bytes:
    """Send a request as it stands, and return the answer's head."""
    head = (
        f"{method} /v1/ingest/{TENANT}/{key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {PCMU}\r\n"
        f"Authorization: Bearer {app.tokens[TENANT, Role.RECORDER]}\r\n"
    )
    body = AUDIO if method == "PUT" else b""
    lines = "".join(f"{each}\r\n" for each in (f"Content-Length: {len(body)}", *headers, ""))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(app.url.rpartition(":")[2]))
    writer.write((head + lines).encode("iso-8859-1") + body)
    answer = await reader.read()
    writer.close()
    return answer


async def shown(app: App, key: str) -> dict[str, object]:
    row = await app.vault.search.call(TENANT, key)
    assert row is not None
    return await call(app, row.id)


async def test_of_a_header_that_comes_twice_the_first_counts_and_the_other_is_told(app):
    twice = ("Call-From: 201", "call-from: 202", "Call-To: 301", "Call-To: 301", "Call-Tags: vip", "Call-Tags: a, b")
    assert b"201 Created" in await sent(app, "twice", *twice)
    found = await shown(app, "twice")
    assert (found["caller"], found["called"], found["tags"]) == ("201", "301", ["vip", "a", "b"])
    assert found["facts_left_out"] == "Call-From (repeated)"


async def test_an_address_as_it_was_typed_names_the_call_in_its_bytes(app):
    head = f" HTTP/1.1\r\nHost: x\r\nContent-Type: {PCMU}\r\nContent-Length: {len(AUDIO)}\r\n".encode()
    head += f"Authorization: Bearer {app.tokens[TENANT, Role.RECORDER]}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(app.url.rpartition(":")[2]))
    for name, key in ((b"Zo\xc3\xab", "Zo=C3=AB"), (b"Zo\xeb", "Zo=EB"), (b"Zo%EB~2", "Zo=EB~2")):
        request = b"PUT /v1/ingest/%s/%s" % (TENANT.encode(), name) + head + AUDIO
        for piece in (request[:28], request[28:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 201"), answer
        await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
        if "~" not in key:
            assert (await shown(app, key))["call_key"] == key
    writer.close()


async def test_a_long_line_costs_the_fact_and_a_head_without_end_the_connection(app):
    assert b"201 Created" in await sent(app, "long", f"Call-From: {'1' * 60_000}", "Call-To: 301")
    found = await shown(app, "long")
    assert (found["called"], found["facts_left_out"]) == ("301", "Call-From (text)")
    assert b"201 Created" in await sent(app, "k" * 60_000)
    assert (await sent(app, "more", f"Call-From: {'1' * 70_000}")).startswith(b"HTTP/1.0 400")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(app.url.rpartition(":")[2]))
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    answer = b""
    for number in range(200):
        writer.write(f"X-{number}: {'1' * 10_000}\r\n".encode())
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0.01):
                answer = await reader.readline()
                break
    assert answer.startswith(b"HTTP/1.1 431"), answer
    writer.close()


async def test_bytes_that_are_no_utf_8_name_a_call_of_their_own(app):
    for path, key in (("c%E9", "c=E9"), ("c%25E9", "c=25E9"), ("c%C3%A9", "c=C3=A9"), ("c%2fd", "c=2Fd")):
        assert b"201 Created" in await sent(app, path)
        assert (await shown(app, key))["call_key"] == key
        assert b"200 OK" in await sent(app, path, method="HEAD")
    said = ",".join(f"{name} {base64.b64encode(value).decode()}" for name, value in (("call_key", b"t\xe9"), TYPE))
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(AUDIO)), "Upload-Metadata": said}
    headers["Content-Type"] = "application/offset+octet-stream"
    made = await app.ask("POST", f"/v1/ingest/{TENANT}/tus", Role.RECORDER, data=AUDIO, headers=headers)
    assert made.status == 201, made.body
    assert (await shown(app, "t=E9"))["call_key"] == "t=E9"


async def test_what_is_only_spelt_otherwise_is_used(app):
    started = app.clock.now().timestamp()
    said = {
        "Call-Direction": "Inbound",
        "Call-Started": str(int(started)),
        "Call-Tags": "\u202avip\u202c, " + "t" * 150,
    }
    found = await call(app, await app.upload("call-1", AUDIO, headers=said))
    assert (found["direction"], found["tags"]) == ("inbound", ["vip", "t" * 150])
    assert "facts_left_out" not in found


async def test_a_header_in_iso_8859_1_is_read_as_what_it_is(app):
    assert b"201 Created" in await sent(app, "latin", "Call-From: Ren\xe9e")
    assert (await shown(app, "latin"))["caller"] == "Ren\xe9e"


async def test_an_upload_over_tus_keeps_its_audio_whatever_its_metadata_say(app):
    values = {"filetype": PCMU, "call_key": "a/b [c]", "direction": "sideways", "started": "soon", "from": b"Ren\xe9e"}
    said = ",".join(
        f"{name} {base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()}"
        for name, value in values.items()
    )
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(AUDIO)), "Upload-Metadata": said}
    sent = {"Content-Type": "application/offset+octet-stream"}
    made = await app.ask("POST", f"/v1/ingest/{TENANT}/tus", Role.RECORDER, data=AUDIO, headers={**headers, **sent})
    assert made.status == 201, made.text
    row = await app.vault.search.call(TENANT, "a=2Fb=20=5Bc=5D")
    found = await call(app, row.id)
    assert (found["caller"], found["facts_left_out"]) == ("Ren\xe9e", "started (value), direction (value)")


async def test_an_upload_over_tus_keeps_its_audio_whatever_becomes_of_its_metadata(app):
    pairs = ["filetype " + base64.b64encode(PCMU.encode()).decode().rstrip("="), "call_key MQ==", "from !", "to MjAx"]
    pairs += ["to MjAy", "départ MQ==", "", "relativePath !", *(f"k{each}" for each in range(64)), "tags dmlw"]
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(AUDIO)), "Upload-Metadata": ",".join(pairs)}
    sent = {"Content-Type": "application/offset+octet-stream"}
    made = await app.ask("POST", f"/v1/ingest/{TENANT}/tus", Role.RECORDER, data=AUDIO, headers={**headers, **sent})
    assert made.status == 201, made.text
    found = await call(app, (await app.vault.search.call(TENANT, "1")).id)
    assert found["called"] == "201"
    assert found["facts_left_out"] == "from (text), to (repeated), départ (unknown), tags (many)"


async def test_an_object_over_s3_keeps_its_audio_whatever_its_metadata_say(app):
    client = Recorder.of(app.url, app.tokens[TENANT, Role.RECORDER]).boto()
    meta = {"direction": "sideways", "started": "soon", "from": "0" * 300, "to": "201", "call-key": "5f3c@[::1]"}
    await asyncio.to_thread(
        client.put_object, Bucket=TENANT, Key="call.pcmu", Body=AUDIO, Metadata=meta, ContentType=PCMU
    )
    row = await app.vault.search.call(TENANT, "5f3c@=5B::1=5D")
    found = await call(app, row.id)
    assert found["called"] == "201"
    assert found["facts_left_out"] == (
        "x-amz-meta-started (value), x-amz-meta-from (text), x-amz-meta-direction (value)"
    )


@pytest.mark.parametrize("key", ["5f3c@[2001:db8::1]", "%2540", "*", "!", "a%2Fb", "a" * 300])
async def test_a_call_is_found_again_under_whatever_its_recorder_calls_it(app, key):
    recording = await app.upload(key, AUDIO)
    again = await app.ask("HEAD", f"/v1/ingest/{TENANT}/{key}", Role.RECORDER)
    assert again.headers["Recording-Id"] == recording
    flagged = await app.ask("POST", f"/v1/ingest/{TENANT}/{key}/flag", Role.RECORDER, body={"category": "other"})
    assert flagged.json["recording_id"] == recording
