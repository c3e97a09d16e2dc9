"""What is declared and what comes: the audio is kept, and what it is, is told, counted and found by doctor."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace

import aiohttp

from tests.helpers.app import PCMU, TENANTS, App, app, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.programs import ffmpeg
from tests.helpers.s3clients import Recorder
from tests.helpers.served import wav
from tests.helpers.uploads import Tus
from tests.helpers.uploads import recording as recording_of
from vault.media.heads import DIFFERENCES
from vault.model import CallFacts, Role
from vault.wiring import open_vault
from vault.wiring.doctor import check_vault, recorder_findings

__all__ = ["app"]

TENANT = TENANTS[0]
TEXT = b"HTTP/1.1 502 Bad Gateway\r\n\r\nno recording today\n" * 40
NOISE = sound(5_000)
SPOKEN = wav(sound(3_000))


async def shown(app: App, recording: str) -> dict[str, object]:
    return (await app.ask("GET", f"/v1/recordings/{recording}", Role.COMPLIANCE)).json["media"]


async def counted(app: App) -> dict[str, float]:
    page = (await app.ask("GET", "/metrics", None)).body.decode()
    name = "callvault_misdeclared_recordings_total{"
    lines = [line.removeprefix(name) for line in page.splitlines() if line.startswith(name)]
    return {line.rpartition(" ")[0].rstrip("}"): float(line.rpartition(" ")[2]) for line in lines}


async def sealed(app: App, recording: str) -> None:
    async with asyncio.timeout(20):
        while (await app.vault.catalog.recording(recording)).state != "sealed":
            await asyncio.sleep(0.02)


async def called(app: App, call_key: str) -> str:
    row = await app.vault.search.call(TENANT, call_key)
    assert row is not None
    return str(row.id)


def encoded(container: str, codec: str) -> bytes:
    """Return half a second of a tone as ffmpeg makes it."""
    tone = ("-f", "lavfi", "-i", "sine=d=0.5:r=16000", "-c:a", codec, "-f", container, "-")
    return subprocess.run([ffmpeg(), "-v", "error", *tone], check=True, capture_output=True).stdout


async def over_http(app: App, media: str, body: bytes) -> str:
    return await app.upload("http", body, media=media)


async def over_s3(app: App, media: str, body: bytes) -> str:
    client = Recorder.of(app.url, app.tokens[TENANT, Role.RECORDER]).boto()
    await asyncio.to_thread(client.put_object, Bucket=TENANT, Key="s3", Body=body, ContentType=media)
    return await called(app, "s3")


async def over_s3_in_parts(app: App, media: str, body: bytes) -> str:
    client = Recorder.of(app.url, app.tokens[TENANT, Role.RECORDER]).boto()
    place = {"Bucket": TENANT, "Key": "parts"}

    def send() -> None:
        upload = {**place, "UploadId": client.create_multipart_upload(**place, ContentType=media)["UploadId"]}
        part = client.upload_part(**upload, PartNumber=1, Body=body)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        client.complete_multipart_upload(**upload, MultipartUpload=parts)

    await asyncio.to_thread(send)
    return await called(app, "parts")


async def over_tus(app: App, media: str, body: bytes) -> str:
    return recording_of(await Tus(app).made(len(body), body, meta={"filetype": media}))


async def over_a_hook(app: App, media: str, body: bytes) -> str:
    form = aiohttp.FormData()
    form.add_field("ngfile", body, filename="a-mix.wav", content_type="application/octet-stream")
    said = {"Call-ID": "hook", "File-Name": "a-mix", "File-Format": media.removeprefix("audio/"), "Kind": "mixed"}
    headers = {f"X-Recording-{name}": value for name, value in said.items()}
    answer = await app.ask("POST", f"/v1/ingest/{TENANT}/rtpengine", Role.RECORDER, data=form, headers=headers)
    assert answer.status == 201, answer.body
    return str(answer.json["recording_id"])


WAYS = (over_http, over_s3, over_s3_in_parts, over_tus, over_a_hook)


async def test_content_that_was_not_declared_is_kept_told_counted_and_warned_of_in_every_dialect(app):
    token = "tok_" + app.tokens[TENANT, Role.RECORDER].split("_")[1]
    for way in WAYS:
        recording = await way(app, "audio/wav", NOISE)
        await sealed(app, recording)
        assert (await app.play(recording)).body == NOISE
        assert (await shown(app, recording))["content"] == "unknown", way
        (entry,) = [each for each in await app.audit("recording.misdeclared") if each["target"] == recording]
        assert entry["detail"] == {"declared": "wav", "content": "unknown", "recorder": token}
    counts = await counted(app)
    assert counts.pop('content="unknown",declared="wav"') == len(WAYS)
    assert (set(counts.values()), len(counts) + 1) == ({0}, len(DIFFERENCES))
    (finding,) = await recorder_findings(app.vault.catalog, now=app.clock.now())
    assert finding.level == "warning"
    assert f"{token} (recorder of {TENANT}) of {TENANT}" in finding.message
    assert f"{len(WAYS)} as wav with no head of it" in finding.message
    assert "Content-Type" in (finding.hint or "")
    assert finding in await check_vault(app.config)
    app.clock.advance(days=8)
    assert not await recorder_findings(app.vault.catalog, now=app.clock.now())


async def test_what_comes_is_told_as_what_it_is_and_plays_as_that(app):
    came = [
        ("audio/ogg", TEXT, "text", "audio/ogg"),
        ("audio/mpeg", SPOKEN, "wav", "audio/wav"),
        (PCMU, SPOKEN, "wav", "audio/wav"),
        ("audio/wav", encoded("webm", "libopus"), "webm", "audio/webm"),
    ]
    for number, (media, body, content, played) in enumerate(came):
        recording = await app.upload(f"call-{number}", body, media=media)
        assert (await shown(app, recording))["content"] == content
        answer = await app.play(recording, raw=False)
        assert (answer.headers["Content-Type"], answer.body) == (played, body)
        assert (await app.play(recording)).body == body
    findings = await recorder_findings(app.vault.catalog, now=app.clock.now())
    assert [finding.message.count(" with ") for finding in findings] == [len(came)]


async def test_what_was_declared_is_not_told_and_its_head_is_shown(app):
    came = [
        ("audio/wav", SPOKEN, ("wav", "s16le", 8_000, 1)),
        ("audio/ogg", encoded("ogg", "libopus"), ("ogg", "stream", 16_000, 1)),
        ("audio/ogg", encoded("ogg", "flac"), ("ogg", "stream", 16_000, 1)),
        ("video/webm", encoded("webm", "libopus"), ("webm", "stream", 16_000, 1)),
        ("audio/L16;rate=8000", NOISE, ("raw", "s16be", 8_000, 1)),
        ("application/octet-stream", SPOKEN, ("wav", "s16le", 8_000, 1)),
    ]
    for number, (media, body, truth) in enumerate(came):
        found = await shown(app, await app.upload(f"call-{number}", body, media=media))
        assert tuple(found[name] for name in ("container", "codec", "rate", "channels")) == truth
        assert found["content"] is None
    assert set((await counted(app)).values()) == {0}
    assert not await recorder_findings(app.vault.catalog, now=app.clock.now())


async def test_a_recorder_continues_what_it_declared_after_the_head_was_read(app):
    tus, body = Tus(app), wav(sound(200_000))
    meta = {"filetype": "audio/wav", "call_key": "call-1"}
    path = await tus.made(len(body), body[:100_000], meta=meta)
    async with asyncio.timeout(20):
        while not (await shown(app, recording_of(path)))["rate"]:
            await asyncio.sleep(0.01)
    assert tus.path(await tus.create(len(body), meta=meta)) == path
    assert (await tus.patch(path, 100_000, body[100_000:])).status == 204
    await sealed(app, recording_of(path))
    assert (await app.play(recording_of(path))).body == body


async def test_what_was_heard_before_a_restart_is_known_after_it():
    with memory_directory() as base:
        async with running(base) as app:
            told = [
                recording_of(await Tus(app).made(300_000, body, meta={"filetype": "audio/wav"}))
                for body in (sound(150_000), wav(sound(150_000)))
            ]
            for each in told:
                async with asyncio.timeout(20):
                    while not (await app.vault.catalog.recording(each)).stored_bytes:
                        await asyncio.sleep(0.01)
        async with open_vault(app.config, clock=app.clock) as vault:
            for each in told:
                session = vault.ingest.live(each)
                await vault.ingest.attach(session, offset=None)
                await vault.ingest.finish(session)
                await session.done.wait()
            rows = [await vault.catalog.recording(each) for each in told]
            assert [(row.content, row.media.rate, row.state.value) for row in rows] == [
                ("unknown", 0, "sealed"),
                (None, 8_000, "sealed"),
            ]
            manifest = await vault.playback.finished(rows[1])
            assert manifest.recording.media.rate == 8_000
            entry = await vault.catalog.last_audited("recording.misdeclared", told[0])
            token = "tok_" + app.tokens[TENANT, Role.RECORDER].split("_")[1]
            assert entry.event.detail["recorder"] == token
            (finding,) = await recorder_findings(vault.catalog, now=app.clock.now())
            assert token in finding.message


async def test_a_pause_that_takes_the_head_is_no_fault_of_the_recorder(app):
    path = await Tus(app).made(len(SPOKEN), meta={"filetype": "audio/wav", "call_key": "call-1"})
    pause = await app.ask("POST", f"/v1/ingest/{TENANT}/call-1/pause", Role.RECORDER)
    assert pause.status == 200, pause.body
    assert (await Tus(app).patch(path, 0, SPOKEN[:960])).status == 204
    assert (await app.ask("POST", f"/v1/ingest/{TENANT}/call-1/resume", Role.RECORDER)).status == 200
    assert (await Tus(app).patch(path, 960, SPOKEN[960:])).status == 204
    await sealed(app, recording_of(path))
    assert (await shown(app, recording_of(path)))["content"] is None


async def test_facts_that_come_while_the_head_is_read_leave_what_it_told(app, monkeypatch):
    recording = recording_of(await Tus(app).made(len(SPOKEN), meta={"filetype": "audio/wav"}))
    session, revise = app.vault.ingest.live(recording), app.vault.catalog.revise_facts
    told = replace(session.recording.media, rate=8_000, channels=1)

    async def meanwhile(*arguments, **named):
        session.recording = replace(session.recording, media=told)
        await revise(*arguments, **named)

    monkeypatch.setattr(app.vault.catalog, "revise_facts", meanwhile)
    await app.vault.notes.revise(session, CallFacts(direction="inbound"))
    assert session.recording.media == told
