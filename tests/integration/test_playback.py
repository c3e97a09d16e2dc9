"""Playing over HTTP: any range of any format, live calls, and what happens when the stored bytes are not the ones."""

from __future__ import annotations

import asyncio
import io
import json
import random
import struct
from pathlib import Path

import aiohttp
import pytest

from tests.helpers.app import PURPOSE, TENANTS, App, app, sound
from tests.helpers.recorder import until
from tests.helpers.uploads import Wire
from vault.config import AccessSettings
from vault.errors import IntegrityError, Unavailable
from vault.ids import RecordingId
from vault.media import g711
from vault.media.wav import wav_header
from vault.model import MANIFEST_INDEX, Codec, Role, SegmentRef
from vault.server.api import recordings

__all__ = ["app"]

CHOICE = random.Random(3)
BIG = 200_001
RANGES = ["0-0", "0-43", "0-", "43-44", "44-44", "45-45", "1000-1001", "1001-70000", "-1", "-100000", "65580-65600"]


def decoded(codec: Codec, stored: bytes) -> bytes:
    return g711.decode(codec, stored)


def swapped(stored: bytes) -> bytes:
    return b"".join(stored[i : i + 2][::-1] for i in range(0, len(stored) - 1, 2))


def as_wav(channels: int, samples: bytes) -> bytes:
    return wav_header(rate=8000, channels=channels, data_bytes=len(samples)) + samples


STREAMED_WAV = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
STREAMED_WAV += b"data\xff\xff\xff\xff"
OGG = b"OggS\x00\x02" + sound(BIG, 9)
SAMPLES = sound(BIG, 4)
EVEN, QUADS = SAMPLES[: BIG & ~1], SAMPLES[: BIG & ~3]

FORMATS: dict[str, tuple[str, bytes, bytes]] = {
    "pcmu": ("audio/PCMU;rate=8000;channels=1", SAMPLES, as_wav(1, decoded(Codec.PCMU, SAMPLES))),
    "pcmu stereo": ("audio/PCMU;rate=8000;channels=2", SAMPLES, as_wav(2, decoded(Codec.PCMU, EVEN))),
    "pcma": ("audio/PCMA;rate=8000;channels=1", SAMPLES, as_wav(1, decoded(Codec.PCMA, SAMPLES))),
    "l16 be": ("audio/L16;rate=8000;channels=1", SAMPLES, as_wav(1, swapped(EVEN))),
    "l16 be stereo": ("audio/L16;rate=8000;channels=2", SAMPLES, as_wav(2, swapped(QUADS))),
    "l16 le": ("audio/L16;rate=8000;channels=1;byteorder=le", SAMPLES, as_wav(1, EVEN)),
    "l16 le stereo": ("audio/L16;rate=8000;channels=2;byteorder=le", SAMPLES, as_wav(2, QUADS)),
    "streamed wav": (
        "audio/wav",
        STREAMED_WAV + EVEN,
        STREAMED_WAV[:4]
        + struct.pack("<I", len(STREAMED_WAV) + len(EVEN) - 8)
        + STREAMED_WAV[8:-4]
        + struct.pack("<I", len(EVEN))
        + EVEN,
    ),
    "ogg": ("audio/ogg", OGG, OGG),
}


def sliced(whole: bytes, span: str) -> tuple[int, bytes]:
    first, last = span.split("-")
    if not first:
        start = max(len(whole) - int(last), 0)
        return start, whole[start:]
    return int(first), whole[int(first) : int(last) + 1 if last else None]


@pytest.mark.parametrize("name", FORMATS)
async def test_a_range_is_a_slice_of_the_whole(app, name):
    media, sent, whole = FORMATS[name]
    recording = await app.upload("call", sent, media=media)
    answer = await app.play(recording, raw=False)
    assert (answer.status, answer.body) == (200, whole)
    assert (await app.play(recording)).body == sent
    spans = [*RANGES, *(f"{a}-{a + CHOICE.randrange(90_000)}" for a in CHOICE.sample(range(len(whole)), 6))]
    for span in spans:
        part = await app.play(recording, raw=False, headers={"Range": f"bytes={span}"})
        start, expected = sliced(whole, span)
        assert (part.status, part.body) == (206, expected), span
        assert part.headers["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{len(whole)}"


async def test_head_tells_the_length_and_sends_nothing(app):
    recording = await app.upload("call", SAMPLES)
    answer = await app.play(recording, raw=False, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(44 + 2 * BIG)
    assert answer.headers["Accept-Ranges"] == "bytes"
    part = await app.play(recording, raw=False, method="HEAD", headers={"Range": "bytes=10-19"})
    assert (part.status, part.headers["Content-Length"]) == (200, str(44 + 2 * BIG))


async def test_a_range_on_a_condition_that_cannot_hold_is_the_whole(app):
    recording = await app.upload("call", SAMPLES)
    for condition in ('"an-etag-of-something-else"', "Wed, 25 Nov 2026 10:00:00 GMT"):
        answer = await app.play(recording, headers={"Range": "bytes=10-19", "If-Range": condition})
        assert (answer.status, answer.body) == (200, SAMPLES)


@pytest.mark.parametrize("full", [False, True], ids=["at once", "while the vault waits for it"])
async def test_a_listener_that_hangs_up_is_no_error_of_the_vault(app, caplog, monkeypatch, full):
    recording = await app.upload("call", io.BytesIO(sound(8 << 20)))
    sent, done, lines = recordings.send, asyncio.Event(), []

    async def sending(request, *arguments, **named):
        lines.append(request.transport)
        try:
            return await sent(request, *arguments, **named)
        finally:
            done.set()

    monkeypatch.setattr(recordings, "send", sending)
    line = await Wire.to(app)
    who = {"Authorization": f"Bearer {app.token(Role.COMPLIANCE)}", **PURPOSE}
    line.send("GET", f"/v1/recordings/{recording}/audio", **who)
    assert (await line.head())[0] == 200
    if full:
        await until(lambda: lines[0].get_write_buffer_size() > lines[0].get_write_buffer_limits()[1])
    line.close()
    await asyncio.wait_for(done.wait(), 10)
    assert not [record for record in caplog.records if record.name.startswith("vault")]


@pytest.mark.parametrize("span", ["100-", "200-300", "-0"])
async def test_a_range_beyond_the_end_is_416_and_tells_the_length(app, span):
    recording = await app.upload("call", sound(100))
    answer = await app.play(recording, headers={"Range": f"bytes={span}"})
    assert (answer.status, answer.problem) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == "bytes */100"


async def test_a_live_call_plays_up_to_its_durable_byte_and_goes_on(app):
    gate = asyncio.Event()
    first, second = sound(100_000, 5), sound(60_000, 6)

    async def talk():
        yield first
        await gate.wait()
        yield second

    upload = asyncio.create_task(app.upload("call", talk()))
    while not (live := (await app.ask("GET", "/v1/recordings")).json["recordings"]) or live[0]["bytes"] < 100_000:
        await asyncio.sleep(0.01)
    recording = live[0]["id"]
    assert live[0]["live"] is True
    answer = await app.play(recording)
    assert (answer.status, answer.body) == (200, first)
    assert answer.headers["Recording-State"] == "live"
    part = await app.play(recording, raw=False, headers={"Range": "bytes=40000-60000"})
    assert part.body == as_wav(1, decoded(Codec.PCMU, first))[40_000:60_001]
    gate.set()
    assert await upload == recording
    assert (await app.play(recording)).body == first + second


# -- who may ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", [None, "curiosity", ""])
async def test_a_play_without_a_permitted_purpose_is_422_and_names_them_all(app, purpose):
    recording = await app.upload("call", sound(100))
    headers = {} if purpose is None else {"Purpose": purpose}
    answer = await app.ask("GET", f"/v1/recordings/{recording}/audio", headers=headers)
    assert (answer.status, answer.problem) == (422, "invalid")
    for each in AccessSettings().purposes:
        assert each in answer.json["hint"]
    assert not await app.audit("access.play")


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR, Role.RECORDER])
async def test_who_may_not_play_gets_no_audio(app, role):
    audio = sound(3000)
    recording = await app.upload("call", audio)
    answer = await app.play(recording, role)
    assert (answer.status, answer.problem) == (403, "forbidden")
    assert audio[:32] not in answer.body


async def test_what_is_held_plays_only_for_roles_that_may_play_held(app):
    recording = await app.upload("call", sound(100), headers={"Call-From": "+442079460123"})
    assert (await app.play(recording, Role.AGENT)).status == 200
    listed = await app.ask("GET", "/v1/recordings", Role.AGENT)
    wanted = {"caller": "+442079460123"}
    found = await app.ask("POST", "/v1/recordings/search", Role.AGENT, body=wanted, headers=PURPOSE)
    assert [each["id"] for each in listed.json["recordings"]] == [each["id"] for each in found.json["recordings"]]
    assert (await app.hold(recording)).status == 201
    assert (await app.play(recording, Role.AGENT)).status == 403
    assert (await app.play(recording, Role.SAFEGUARDING_LEAD)).status == 200
    for role in (Role.AGENT, Role.SAFEGUARDING_LEAD):
        assert (await app.ask("GET", f"/v1/recordings/{recording}/audio", role)).status == 422, "without a purpose"
    assert (await app.ask("POST", "/v1/recordings/search", Role.AGENT, body=wanted)).status == 422


async def test_what_a_hold_is_being_placed_on_plays_for_them_only_too(app, monkeypatch):
    recording = await app.upload("call", sound(500))
    with monkeypatch.context() as outage:
        outage.setattr(app.vault.holds, "_decide", unanswered)
        assert (await app.hold(recording)).problem == "outcome_unknown"
    assert (await app.ask("GET", "/v1/holds")).json["holds"][0]["state"] == "placing"
    assert (await app.play(recording, Role.AGENT)).status == 403
    assert (await app.play(recording, Role.COMPLIANCE)).status == 200


async def unanswered(*_: object) -> None:
    raise Unavailable("no answer")


async def test_the_audit_entry_is_written_before_the_first_byte_is_read(app, monkeypatch):
    recording = await app.upload("call", sound(3000))
    seen = []
    get, append = app.vault.store.get, app.vault.catalog.append_audit

    async def watched_get(*args, **kwargs):
        seen.append("read")
        return await get(*args, **kwargs)

    async def watched_append(events):
        await append(events)
        seen.extend((event.event, event.target, event.purpose) for event in events)

    monkeypatch.setattr(app.vault.store, "get", watched_get)
    monkeypatch.setattr(app.vault.catalog, "append_audit", watched_append)
    assert (await app.play(recording)).status == 200
    assert seen[0] == ("access.play", recording, "quality")
    assert "read" in seen


async def test_what_cannot_be_logged_is_not_played(app, monkeypatch):
    audio = sound(3000)
    recording = await app.upload("call", audio)

    async def broken(_events):
        raise Unavailable("the database is gone")

    monkeypatch.setattr(app.vault.catalog, "append_audit", broken)
    answer = await app.play(recording)
    assert (answer.status, answer.problem) == (503, "unavailable")
    assert audio[:32] not in answer.body


# -- what is not what was stored ----------------------------------------------------------------------------------

INTEGRITY = {kind.code for kind in (IntegrityError, *IntegrityError.__subclasses__())}


async def objects(app: App, recording: str) -> dict[int, SegmentRef]:
    return {ref.index: ref for ref in await app.vault.catalog.segments(RecordingId(recording))}


def file_of(app: App, ref: SegmentRef) -> Path:
    return app.config.objects_path / "objects" / f"{ref.name}#object"


@pytest.fixture
async def recording(app) -> str:
    """A recording of three segments of 64 KiB and a rest."""
    return await app.upload("call", SAMPLES)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


async def received(app: App, recording: str) -> tuple[int, bytes]:
    """Return the status and every byte of audio that came before the connection was cut or all was there."""
    headers = {"Authorization": f"Bearer {app.token(Role.COMPLIANCE)}", **PURPOSE}
    got = b""
    async with app.client.get(f"/v1/recordings/{recording}/audio?format=raw", headers=headers) as response:
        try:
            async for piece in response.content.iter_any():
                got += piece
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
            return response.status, got
        if response.status == 200:
            return response.status, got
        assert response.headers["Content-Type"] == "application/problem+json"
        assert json.loads(got)["type"].rpartition(":")[2] in INTEGRITY
        return response.status, b""


DAMAGE = {
    "first byte": lambda path: flip(path, 512),
    "middle": lambda path: flip(path, path.stat().st_size // 2),
    "last byte": lambda path: flip(path, path.stat().st_size - 1),
    "cut by one": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "cut to its header": lambda path: path.write_bytes(path.read_bytes()[:512]),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "missing": lambda path: path.unlink(),
}


AT_THE_END = {"last byte", "cut by one", "one byte more"}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("index", [MANIFEST_INDEX, 0, 1])
async def test_damage_is_a_problem_or_a_cut_connection_and_never_a_byte_beyond_the_verified(
    app, recording, index, damage
):
    ref = (await objects(app, recording))[index]
    DAMAGE[damage](file_of(app, ref))
    status, got = await received(app, recording)
    # The segments here end in an empty chunk: damage to it takes nothing from the audio, all of which is verified.
    if (status, got) == (200, SAMPLES):
        assert damage in AT_THE_END
    elif index < 1:
        assert (status, got) == (500, b"")
    else:
        assert status == 200
        assert SAMPLES.startswith(got)
        assert len(got) <= ref.offset


async def test_segments_in_each_others_place_are_refused(app, recording):
    found = await objects(app, recording)
    first, second = file_of(app, found[1]), file_of(app, found[2])
    assert found[1].object_bytes == found[2].object_bytes
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    _, got = await received(app, recording)
    assert SAMPLES.startswith(got)
    assert len(got) <= found[1].offset
    answer = await app.play(recording, headers={"Range": f"bytes={found[1].offset}-"})
    assert (answer.status, answer.problem) == (500, "tampered")


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("index", [MANIFEST_INDEX, 0])
async def test_another_recordings_object_is_refused_even_with_the_same_audio(app, recording, tenant, index):
    other = await app.upload("other", SAMPLES, tenant=tenant)
    ours, theirs = (await objects(app, recording))[index], (await objects(app, other))[index]
    file_of(app, ours).write_bytes(file_of(app, theirs).read_bytes())
    assert await received(app, recording) == (500, b"")


async def test_an_outage_in_the_middle_cuts_the_connection_instead_of_sending_its_problem_as_audio(
    app, recording, monkeypatch
):
    get, calls = app.vault.store.get, 0

    async def failing(name, **where):
        nonlocal calls
        calls += 1
        if calls > 4:
            raise Unavailable("the store went away")
        return await get(name, **where)

    monkeypatch.setattr(app.vault.store, "get", failing)
    status, got = await received(app, recording)
    assert status == 200
    assert 0 < len(got) < BIG
    assert SAMPLES.startswith(got)


async def test_a_segment_the_manifest_does_not_name_is_not_read(app, recording):
    found = await objects(app, recording)
    stray = file_of(app, found[0])
    stray.with_name(stray.name.replace("000000-", "000007-")).write_bytes(stray.read_bytes())
    assert (await app.play(recording)).body == SAMPLES


async def test_what_does_not_exist_or_has_no_such_format_is_refused(app):
    recording = await app.upload("call", sound(10))
    assert (await app.play("rec_" + "0" * 32)).status == 404
    assert (await app.play("nonsense")).status == 404
    answer = await app.ask("GET", f"/v1/recordings/{recording}/audio?format=mp3", headers=PURPOSE)
    assert (answer.status, answer.problem) == (422, "invalid")
