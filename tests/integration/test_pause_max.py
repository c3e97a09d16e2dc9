"""A pause ends by itself, with an alarm, whoever asked for it and however; what is said from then on is kept."""

import asyncio
import logging
import shutil
from datetime import datetime, timedelta

import pytest

from tests.helpers.app import PURPOSE, SETTINGS, TENANTS, App, app, out_of_reach, running
from tests.helpers.audiohook_client import TONE
from tests.helpers.audiohook_sessions import opened
from tests.helpers.call_notes import CALL, Recorder, notes_of, turn, wait_for
from tests.helpers.crashing import memory_directory
from tests.helpers.recorder import until
from tests.helpers.trail import audit_entries
from vault.config import parse_config
from vault.errors import Unavailable
from vault.model import Role
from vault.services.ingest import ingest
from vault.wiring import open_vault

__all__ = ["app"]

MAX = 900
"""Seconds, as config.toml has it."""
PATIENCE = 10


async def passes(app: App, seconds: float) -> None:
    """Let time go by, on the wall and on the clock that nobody sets."""
    app.clock.advance(seconds=seconds)
    app.clock.slept += seconds
    await app.vault.keyring.refresh()


def session_of(app: App, key: str = "call-1"):
    return app.vault.ingest.live_call(TENANTS[0], key)


async def ended_by_the_vault(app: App, number: int = 1, key: str = "call-1") -> None:
    """Wait until the vault has ended so many pauses, and the call is kept."""
    session = session_of(app, key)
    await until(lambda: counted(app) == number and not session.keeping.paused, seconds=PATIENCE)


async def still_paused(app: App) -> None:
    """Let the vault look at the pause: it does not end it."""
    session = session_of(app)
    assert not await app.vault.notes.end_overlong(session, timedelta(seconds=MAX))
    assert session.keeping.paused


def counted(app: App) -> float:
    return app.vault.metrics.registry.get_sample_value("callvault_pauses_ended_total")


def by_call(app: App) -> tuple[str, Role]:
    return CALL, Role.RECORDER


def by_recording(app: App) -> tuple[str, Role]:
    return f"/v1/recordings/{session_of(app).recording.id}", Role.AGENT


@pytest.mark.parametrize("way", [by_call, by_recording])
async def test_nobody_silences_a_call_beyond_pause_max_without_an_alarm(app, caplog, way):
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    assert counted(app) == 0
    path, who = way(app)
    began = app.clock.now() - timedelta(milliseconds=1)
    assert (await turn(app, "pause", who, path=path))["paused"]
    await recorder.send(b"x" * 800, until=1_600)
    await passes(app, MAX - 5)
    await still_paused(app)
    with caplog.at_level(logging.WARNING, logger="vault"):
        await passes(app, 5)
        await ended_by_the_vault(app)
    await recorder.send(b"b" * 800, until=2_400)
    recording = session_of(app).recording.id
    shown = await notes_of(app, recording)
    assert (shown["live"], shown["paused"]) == (True, False)
    assert MAX * 1000 <= shown["gaps"][0]["missing_ms"] < (MAX + 30) * 1000
    # A resume that comes after it changes nothing.
    state = await turn(app, "resume", who, path=path)
    assert (state["paused"], state["ends_at"]) == (False, None)
    await recorder.end()
    assert (await app.play(recording)).body == b"a" * 800 + b"b" * 800
    [paused] = await app.audit("recording.paused")
    [entry] = await app.audit("recording.pause_ended")
    assert (entry["actor"], entry["target"], entry["tenant"]) == ("vault", recording, TENANTS[0])
    assert entry["detail"]["paused_by"] == paused["actor"]
    assert who.value in paused["actor"]
    assert timedelta(0) <= datetime.fromisoformat(entry["detail"]["paused_at"]) - began < timedelta(seconds=30)
    assert entry["detail"]["dropped_bytes"] == 800
    assert await app.audit("recording.resumed") == []
    [line] = [record for record in caplog.records if "pause" in record.getMessage()]
    assert line.fields == {"recording": recording, "pause_max_seconds": MAX}
    assert "callvault_pauses_ended_total 1.0" in (await app.ask("GET", "/metrics", None)).body.decode()


async def test_pausing_again_and_again_ends_as_one_pause_does(app):
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    first = await turn(app, "pause")
    for _ in range(2):
        await passes(app, 440)
        await turn(app, "resume")
        again = await turn(app, "pause")
    assert first["ends_at"] < again["ends_at"]
    await still_paused(app)
    await passes(app, 20)
    await ended_by_the_vault(app)
    # Then the count begins anew: whoever has card data to protect is not kept from it.
    await turn(app, "pause")
    await passes(app, MAX - 10)
    await still_paused(app)
    await passes(app, 10)
    await ended_by_the_vault(app, 2)
    assert [entry["event"] for entry in await app.audit() if "paused" in entry["event"]] == ["recording.paused"] * 4
    assert len(await app.audit("recording.pause_ended")) == 2
    await recorder.end()


async def test_short_pauses_of_a_long_call_never_add_up_to_an_end(app):
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    for _ in range(20):
        await turn(app, "pause")
        await passes(app, 60)
        await turn(app, "resume")
        await passes(app, 60)
    await turn(app, "pause")
    await passes(app, MAX - 10)
    await still_paused(app)
    await recorder.end()
    assert counted(app) == 0


async def test_a_wall_clock_that_is_set_neither_ends_nor_prolongs_a_pause(app):
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    await turn(app, "pause")
    app.clock.advance(hours=2)
    await still_paused(app)
    app.clock.advance(hours=-4)
    await passes(app, MAX)
    await ended_by_the_vault(app)
    await recorder.end()


async def test_a_pause_that_the_client_of_an_audiohook_declares_ends_too_and_its_resumed_is_harmless(app):
    async with opened(app) as (client, socket):
        [session] = app.vault.ingest._by_id.values()
        await socket.send(TONE)
        await until(lambda: session.appended == len(TONE))
        await socket.send(client.say("paused"))
        await until(lambda: session.keeping.paused)
        await socket.send(b"\xff" * len(TONE))
        await until(lambda: session.keeping.unnoted == len(TONE))
        await passes(app, MAX)
        await ended_by_the_vault(app, key=session.call_key)
        # It thinks itself paused. What it sends all the same is kept; what it does not send is a gap.
        await socket.send(TONE)
        await until(lambda: session.appended == 2 * len(TONE))
        await passes(app, 60)
        await socket.send(client.say("resumed", start="PT0S", discarded="PT60S"))
        await socket.send(TONE)
        await until(lambda: session.appended == 3 * len(TONE))
        # And it may pause again.
        await socket.send(client.say("paused"))
        await until(lambda: session.keeping.paused)
        await socket.send(client.say("resumed", start="PT0S", discarded="PT0S"))
        await socket.send(client.say("close", reason="end"))
        assert client.heard(await socket.recv())[0] == "closed"
    recording = session.recording.id
    assert (await app.play(recording)).body == TONE * 3
    gaps = [(gap["reason"], gap["missing_ms"] // 1000) for gap in (await notes_of(app, recording))["gaps"]]
    assert gaps[0][0] == "paused"
    assert MAX <= gaps[0][1] < MAX + 30
    assert gaps[1][0] == "lost"
    assert 58 <= gaps[1][1] < 90
    [entry] = await app.audit("recording.pause_ended")
    assert entry["detail"]["paused_by"] == (await app.audit("recording.paused"))[0]["actor"]


@pytest.mark.parametrize("away", [100, MAX + 100])
async def test_a_pause_that_is_taken_up_again_counts_from_when_it_began(away):
    with memory_directory() as first, memory_directory() as second:
        async with running(first) as app:
            recorder = Recorder(app)
            await recorder.send(b"a" * 800, until=800)
            # Of an earlier pause, too, a restart forgets nothing.
            await turn(app, "pause")
            await passes(app, 300)
            await turn(app, "resume")
            await recorder.send(b"b" * 800, until=1_600)
            await turn(app, "pause")
            [*_, paused] = await app.audit("recording.paused")
            # What a killed process would leave.
            await asyncio.to_thread(shutil.copytree, first, second, dirs_exist_ok=True)
            clock = app.clock
            await recorder.end()
        clock.advance(seconds=away)
        settings = {**SETTINGS, "server": {**SETTINGS["server"], "resume_grace": "1h"}}
        async with open_vault(parse_config(settings, base=second), clock=clock) as vault:
            session = vault.ingest.live_call(TENANTS[0], "call-1")
            assert session.keeping.paused
            if away < MAX:
                assert 490 <= vault.ingest.pause_left(session).total_seconds() <= 500
                clock.slept += MAX - 300 - away
            await until(lambda: not session.keeping.paused, seconds=PATIENCE)
            [last] = [
                entry.event
                for entry in await audit_entries(vault.catalog, limit=1000)
                if entry.event.event == "recording.pause_ended"
            ]
            assert last.detail["paused_by"] == paused["actor"]
            told = datetime.fromisoformat(paused["at"]) - datetime.fromisoformat(last.detail["paused_at"])
            assert timedelta(0) <= told < timedelta(seconds=30)
            await vault.ingest.attach(session, offset=1_600)
            await vault.ingest.write(session, b"c" * 100)
            assert session.appended == 1_700


async def test_while_the_catalog_cannot_answer_the_pause_goes_on_and_then_it_ends(app, monkeypatch):
    monkeypatch.setattr(ingest, "_AGAIN_SECONDS", 0.1)
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    await turn(app, "pause")
    with out_of_reach(app.vault.catalog, "put_notes"):
        await passes(app, MAX)
        with pytest.raises(Unavailable):
            await app.vault.notes.end_overlong(session_of(app), timedelta(seconds=MAX))
        await recorder.send(b"x" * 800)
        await until(lambda: session_of(app).keeping.unnoted == 800)
        assert counted(app) == 0
    await ended_by_the_vault(app)
    await recorder.send(b"b" * 800)
    await wait_for(app, 2_400)
    recording = (await recorder.end()).json["recording_id"]
    assert (await app.play(recording)).body == b"a" * 800 + b"b" * 800
    assert len(await app.audit("recording.pause_ended")) == 1


async def test_a_pause_that_no_note_tells_of_yet_ends_in_the_name_of_who_asked_for_it(app):
    recorder = Recorder(app)
    await recorder.send(b"a" * 800, until=800)
    with out_of_reach(app.vault.catalog, "put_notes"):
        assert (await app.ask("POST", f"{CALL}/pause", Role.RECORDER)).status == 503
    await passes(app, MAX)
    await ended_by_the_vault(app)
    [paused] = await app.audit("recording.paused")
    [entry] = await app.audit("recording.pause_ended")
    assert "recorder" in paused["actor"]
    assert entry["detail"]["paused_by"] == paused["actor"]
    await recorder.end()
    assert (await app.ask("GET", "/v1/recordings", headers=PURPOSE)).json["recordings"][0]["state"] == "sealed"
