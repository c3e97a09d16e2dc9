"""Pauses, keys, gaps and documents of a call, over HTTP: what must not be kept is nowhere, what is noted comes back."""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

from tests.helpers.app import PCMU, PURPOSE, SETTINGS, App, app, running, sound
from tests.helpers.call_notes import CALL, Recorder, notes_of, told, turn, wait_for
from tests.helpers.crashing import memory_directory
from tests.helpers.recorder import until
from vault.config import parse_config
from vault.media.descriptor import parse_content_type
from vault.model import CallFacts, Role
from vault.protocol.live.events import Audio, Dtmf, Facts, Gap, Paused, Resumed, Started
from vault.services.ingest.live import Feed
from vault.services.recordings.search import facts_of
from vault.wiring import open_vault

__all__ = ["app"]

SIPREC = (Path(__file__).parents[1] / "unit" / "siprec" / "oracle.xml").read_bytes()
STEREO = "audio/L16;rate=8000;channels=2"


async def test_what_is_said_during_a_pause_is_nowhere_and_the_rest_plays_in_phase(app):
    before, card, after = sound(4_000, 1), b"CARD4111111111111111" * 150 + b"x", sound(4_000, 3)
    recorder = Recorder(app, media=STEREO)
    await recorder.send(before + b"\x01", until=4_001)  # in the middle of a frame of 4 bytes
    assert (await turn(app, "pause"))["paused"] is True
    await recorder.send(card, until=4_001 + len(card))
    paused = await turn(app, "resume")
    assert (paused["paused"], paused["bytes"]) == (False, 4_001)
    owed = -len(card) % 4
    rest = bytes(range(owed)) + after
    await recorder.send(rest, until=4_001 + len(card) + len(rest))
    answer = await recorder.end()
    assert (answer.status, answer.json["bytes"]) == (201, 8_001)
    recording = answer.json["recording_id"]
    assert (await app.play(recording)).body == before + b"\x01" + after
    shown = await notes_of(app, recording)
    [gap] = shown["gaps"]
    assert (gap["offset"], gap["reason"], gap["dropped_bytes"]) == (4_001, "paused", len(card) + owed)
    assert not shown["live"]
    assert not shown["paused"]
    assert [entry["event"] for entry in await app.audit() if entry["event"].startswith("recording.")] == [
        "recording.started",
        "recording.paused",
        "recording.resumed",
        "recording.sealed",
    ]


async def test_pausing_and_resuming_twice_is_as_good_as_once(app):
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    for verb in ("pause", "pause", "resume", "resume"):
        await turn(app, verb)
    await recorder.send(b"b" * 800, until=1_600)
    recording = (await recorder.end()).json["recording_id"]
    assert (await app.play(recording)).body == b"a" * 800 + b"b" * 800
    assert (
        len([entry for entry in await app.audit() if entry["event"] in {"recording.paused", "recording.resumed"}]) == 2
    )


async def test_a_person_pauses_by_the_recording_and_the_notes_show_it_live(app):
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    [listed] = (await app.ask("GET", "/v1/recordings?state=open")).json["recordings"]
    path = f"/v1/recordings/{listed['id']}"
    await turn(app, "pause", Role.AGENT, path=path)
    shown = await notes_of(app, listed["id"])
    assert (shown["live"], shown["paused"], shown["gaps"][0]["offset"]) == (True, True, 800)
    for who in (Role.OPERATOR, Role.AUDITOR, Role.DPO, Role.RECORDER):
        assert (await app.ask("POST", f"{path}/resume", who)).status == 403
    assert (await app.ask("POST", f"{path}/resume", Role.AGENT, tenant="southgate")).status == 404
    await turn(app, "resume", Role.AGENT, path=path)
    await recorder.end()
    for path_of_ended in (path, CALL):
        who = Role.AGENT if path_of_ended == path else Role.RECORDER
        answer = await app.ask("POST", f"{path_of_ended}/pause", who)
        assert (answer.status, answer.problem) == (409, "conflict")
    assert (await app.ask("POST", "/v1/ingest/northfield/nobody/pause", Role.RECORDER)).status == 404


async def test_a_recorder_that_comes_back_counts_what_was_dropped(app):
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    await turn(app, "pause")
    await recorder.send(b"CARD" * 100, until=1_200)
    recorder.done.cancel()
    await until(lambda: not app.vault.ingest.uploading)
    # It continues at what it was told, still paused; then at an offset that leaves the dropped bytes out.
    wrong = await app.ask("PUT", CALL, Role.RECORDER, data=b"c", headers={"Content-Type": PCMU, "Upload-Offset": "800"})
    assert (wrong.status, wrong.headers["Upload-Offset"]) == (409, "1200")
    again = Recorder(app, headers={"Upload-Offset": "1200"})
    await again.send(b"CARD" * 10, until=1_240)
    await turn(app, "resume")
    await again.send(b"b" * 60, until=1_300)
    again.done.cancel()
    await until(lambda: not app.vault.ingest.uploading)
    # And once it sends everything from the beginning: the dropped bytes are skipped, not compared and not kept.
    everything = b"a" * 800 + b"CARD" * 110 + b"b" * 60 + b"d" * 100
    answer = await app.ask("PUT", CALL, Role.RECORDER, data=everything, headers={"Content-Type": PCMU})
    assert (answer.status, answer.json["bytes"]) == (201, 960)
    recording = answer.json["recording_id"]
    assert (await app.play(recording)).body == b"a" * 800 + b"b" * 60 + b"d" * 100
    replay = await app.ask("PUT", CALL, Role.RECORDER, data=everything, headers={"Content-Type": PCMU})
    assert (replay.status, replay.json["sha256"]) == (200, answer.json["sha256"])
    assert await told(app) == len(everything)
    at_the_end = {"Content-Type": PCMU, "Upload-Offset": str(len(everything))}
    assert (await app.ask("PUT", CALL, Role.RECORDER, data=b"", headers=at_the_end)).status == 200


async def test_what_a_pause_dropped_and_what_never_came_are_counted_together(app):
    async def piece(start, data, total="*"):
        headers = {"Content-Type": PCMU, "Content-Range": f"bytes {start}-{start + len(data) - 1}/{total}"}
        return await app.ask("PUT", f"{CALL}?append", Role.RECORDER, data=data, headers=headers)

    assert (await piece(0, b"a" * 100)).status == 202
    await turn(app, "pause")
    assert (await piece(100, b"CARD" * 10)).status == 202
    await turn(app, "resume")
    assert (await piece(200, b"b" * 50)).status == 202  # the recorder gave up 60 bytes
    assert (await piece(230, b"b" * 20 + b"c" * 10)).status == 202
    answer = await piece(260, b"d" * 40, total=300)
    assert (answer.status, answer.json["state"], answer.json["bytes"]) == (201, "truncated", 200)
    assert (await app.play(answer.json["recording_id"])).body == b"a" * 100 + b"b" * 50 + b"c" * 10 + b"d" * 40


async def test_a_call_that_ends_paused_says_so(app):
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    await turn(app, "pause")
    recording = (await recorder.end()).json["recording_id"]
    assert (await app.play(recording)).body == b"a" * 800
    assert [gap["reason"] for gap in (await notes_of(app, recording))["gaps"]] == ["paused"]


async def test_siprec_metadata_gives_the_call_its_numbers_and_is_kept_as_it_came(app):
    early = await app.ask(
        "POST", f"{CALL}/siprec", Role.RECORDER, data=SIPREC, headers={"Content-Type": "application/rs-metadata+xml"}
    )
    assert (early.status, early.headers["Retry-After"]) == (404, "1")
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    broken = b"<recording"
    for content, kind, number, parsed in (
        (SIPREC, "application/rs-metadata+xml", 0, True),
        (SIPREC, "application/rs-metadata+xml", 0, True),
        (broken, "text/xml; charset=utf-8", 1, False),
    ):
        answer = await app.ask("POST", f"{CALL}/siprec", Role.RECORDER, data=content, headers={"Content-Type": kind})
        assert answer.status == 200, answer.body
        assert (answer.json["document"], answer.json["parsed"]) == (number, parsed)
        assert (answer.json["why"] is None) == parsed
    page = await app.ask("GET", "/v1/recordings?called=%2B441632960100", headers=PURPOSE)
    assert len(page.json["recordings"]) == 1
    recording = (await recorder.end()).json["recording_id"]
    late = await app.ask("POST", f"{CALL}/siprec", Role.RECORDER, data=SIPREC, headers={"Content-Type": "text/xml"})
    assert (late.status, late.problem) == (409, "conflict")
    shown = (await app.ask("GET", f"/v1/recordings/{recording}")).json["call"]
    assert (shown["caller"], shown["called"], shown["call_key"]) == ("+441632960001", "+441632960100", "call-1")
    found = (await notes_of(app, recording))["documents"]
    assert [each["bytes"] for each in found] == [len(SIPREC), len(broken)]
    for number, content in enumerate((SIPREC, broken)):
        answer = await app.ask("GET", f"/v1/recordings/{recording}/documents/{number}", headers=PURPOSE)
        assert (answer.status, answer.body) == (200, content)
    assert (await app.ask("GET", f"/v1/recordings/{recording}/documents/2", headers=PURPOSE)).status == 404
    assert b"1632960" not in b"".join(repr(entry).encode() for entry in await app.audit())


async def test_documents_are_bounded_in_number_size_and_kind(app):
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    for kind, content, status in (
        ("application/json", b"{}", 415),
        ("text/xml", b"", 422),
        ("text/xml", b"x" * ((256 << 10) + 1), 413),
        *(("text/xml", b"<recording>%d</recording>" % number, 200) for number in range(8)),
        ("text/xml", b"<recording>another</recording>", 413),
    ):
        answer = await app.ask("POST", f"{CALL}/siprec", Role.RECORDER, data=content, headers={"Content-Type": kind})
        assert answer.status == status, answer.body
    await recorder.end()


async def test_notes_are_for_those_who_may_hear_and_are_logged_as_hearing(app):
    recording = await app.upload("call-1", b"a" * 800)
    path = f"/v1/recordings/{recording}/notes"
    assert (await app.ask("GET", path)).status == 422
    for who in (Role.OPERATOR, Role.AUDITOR, Role.RECORDER):
        assert (await app.ask("GET", path, who, headers=PURPOSE)).status == 403
    await app.hold(recording)
    assert (await app.ask("GET", path, Role.AGENT, headers=PURPOSE)).status == 403
    assert (await notes_of(app, recording))["gaps"] == []
    [entry] = await app.audit("access.notes")
    assert (entry["purpose"], entry["target"]) == ("quality", recording)


@asynccontextmanager
async def fed(app: App, *, media: str = PCMU):
    """A live feed of its own, as a WebSocket has it."""
    actor = await app.vault.access.authenticate(app.token(Role.RECORDER))
    feed = Feed(app.vault.feeds, tenant="northfield", actor=actor, silent_seconds=lambda: 0.0, replaced=lambda: None)
    await feed.begin(Started(call_key="call-1", media=parse_content_type(media)))
    yield feed
    feed.lost()


async def finished(app: App, feed: Feed) -> str:
    session = feed.session
    await app.vault.ingest.finish(session)
    async with asyncio.timeout(5):
        await session.done.wait()
    return session.recording.id


async def test_keys_are_dropped_unless_the_tenant_keeps_them_and_never_kept_in_a_pause(app):
    for keep, expected in ((False, []), (True, ["5"])):
        body = {"retention": None, "keep_dtmf": keep}
        changed = await app.ask("PUT", "/v1/tenants/northfield", Role.OPERATOR, body=body)
        assert changed.json["keep_dtmf"] is keep
        async with fed(app) as feed:
            await feed.apply(Audio(b"a" * 400))
            assert feed.take(b"a" * 400)
            await feed.apply(Dtmf(digit="5", duration_ms=120))
            await feed.apply(Paused())
            await feed.apply(Dtmf(digit="9"))
            assert feed.take(b"CARD")
            await feed.apply(Resumed())
            recording = await finished(app, feed)
        shown = await notes_of(app, recording)
        assert [key["digit"] for key in shown["dtmf"]] == expected
        assert shown["gaps"][0]["dropped_bytes"] == 4
        assert (await app.play(recording)).body == b"a" * 800


async def test_gaps_of_a_live_recorder_are_noted_where_its_audio_stops(app):
    async with fed(app) as feed:
        await feed.apply(Audio(b"a" * 8_000))
        await feed.apply(Gap(missing_ms=40))
        await feed.session.entry.barrier()
    app.clock.advance(seconds=31)
    async with fed(app) as feed:
        await feed.apply(Facts(facts=CallFacts(called="+441632960100", tags=("late",))))
        recording = await finished(app, feed)
    gaps = (await notes_of(app, recording))["gaps"]
    assert [(gap["offset"], gap["reason"]) for gap in gaps] == [(8_000, "lost")] * 2
    assert gaps[0]["missing_ms"] == 40
    assert 29_900 <= gaps[1]["missing_ms"] <= 31_000
    call = (await app.ask("GET", f"/v1/recordings/{recording}")).json["call"]
    assert (call["called"], call["tags"]) == ("+441632960100", ["late"])


async def test_a_paused_call_is_still_paused_when_the_server_comes_back():
    with memory_directory() as first, memory_directory() as second:
        async with running(first) as app:
            recorder = Recorder(app)
            await recorder.send(b"a" * 800, until=800)
            await turn(app, "pause")
            await recorder.send(b"CARD" * 10, until=840)
            # What a killed process would leave.
            await asyncio.to_thread(shutil.copytree, first, second, dirs_exist_ok=True)
            clock = app.clock
            await recorder.end()
        async with open_vault(parse_config(SETTINGS, base=second), clock=clock) as vault:
            session = vault.ingest.live_call("northfield", "call-1")
            assert session.keeping.paused
            assert await vault.ingest.attach(session, offset=840) == 840
            await vault.ingest.write(session, b"CARD")
            await vault.notes.resume(session)
            await vault.ingest.write(session, b"b" * 100)
            await vault.ingest.finish(session)
            async with asyncio.timeout(5):
                await session.done.wait()
            assert (await vault.catalog.recording(session.recording.id)).stored_bytes == 900
            assert await vault.catalog.notes(session.recording.id) == {}


async def test_what_a_recorder_calls_its_own_facts_means_nothing_to_a_server_that_comes_back():
    said = {"callSid": "call-1", "sampleRate": 8000, "mixType": "mono", "campaign": "spring"}
    mine = {"grace_seconds": "3", "upload_length": "800"}
    older = Facts(facts=CallFacts(extra={"grace_seconds": "nan", "upload_length": "all"}))
    for kept in (None, older):
        with memory_directory() as first, memory_directory() as second:
            async with running(first) as app:
                headers = {"Authorization": "Bearer " + app.token(Role.RECORDER)}
                async with app.client.ws_connect("/v1/ingest/northfield/ws", headers=headers) as socket:
                    await socket.send_str(json.dumps({**said, **mine}))
                    await socket.send_bytes(b"a" * 800)
                    await wait_for(app, 800)
                    if kept is not None:
                        await app.vault.notes.facts(app.vault.ingest.live_call("northfield", "call-1"), kept)
                    # What a killed process would leave.
                    await asyncio.to_thread(shutil.copytree, first, second, dirs_exist_ok=True)
            async with open_vault(parse_config(SETTINGS, base=second), clock=app.clock) as vault:
                session = vault.ingest.live_call("northfield", "call-1")
                assert (session.grace, session.resumable, session.total) == (None, False, None)
                assert facts_of(vault.keyring, session.recording).extra["campaign"] == "spring"


async def test_a_document_that_stops_coming_is_told_so_and_not_kept():
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], "idle_timeout": "1s"}) as app:
            live = Recorder(app)
            await live.send(b"a" * 800, until=800)

            async def stopping():
                yield SIPREC[:100]
                await asyncio.Event().wait()

            headers = {"Content-Type": "application/rs-metadata+xml"}
            answer = await app.ask("POST", f"{CALL}/siprec", Role.RECORDER, data=stopping(), headers=headers)
            assert (answer.status, answer.problem) == (408, "upload_stalled")
            assert b"nothing was done" in answer.body
            session = app.vault.ingest.live_call("northfield", "call-1")
            assert session is None or session.keeping.notes == []
            await live.end()
