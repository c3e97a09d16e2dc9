"""What one live connection's events do to its recording, whatever the dialect."""

import pytest

from tests.helpers.app import PURPOSE, app, out_of_reach, sound
from tests.helpers.live_line import Line
from vault.errors import Conflict, Invalid
from vault.media.descriptor import raw_media
from vault.model import CallFacts, Codec, RecordingState
from vault.protocol.live.events import Ended, Facts, Gap, Paused, Resumed
from vault.services.recordings.search import facts_of

__all__ = ["app"]

STEREO = raw_media(Codec.S16LE, rate=8000, channels=2)


async def kept(app, session):
    await session.done.wait()
    row = await app.vault.catalog.recording(session.recording.id)
    return row.state, row.stored_bytes


async def test_a_connection_that_comes_back_in_its_grace_continues_the_recording(app):
    first, second = Line(app), Line(app)
    session = await first.begin()
    await first.say(b"ab" * 800)
    first.feed.lost()
    assert await second.begin() is session
    await second.say(b"cd" * 800)
    await second.feed.apply(Ended(clean=True, reason="close"))
    assert await kept(app, session) == (RecordingState.SEALED, 3200)
    played = await app.play(session.recording.id)
    assert played.body == b"ab" * 800 + b"cd" * 800


async def test_a_silent_connection_gives_way_and_nothing_more_is_taken_from_it(app):
    first, second = Line(app), Line(app)
    session = await first.begin()
    await first.say(b"ab" * 800)
    first.silence = 6.0
    assert await second.begin() is session
    assert first.was_replaced
    assert not first.feed.take(b"xx")
    with pytest.raises(Conflict):
        await first.say(b"xx")
    first.feed.lost()
    await second.say(b"cd")
    await second.feed.apply(Ended(clean=True, reason="close"))
    assert await kept(app, session) == (RecordingState.SEALED, 1602)


async def test_a_connection_that_still_speaks_is_not_displaced(app):
    first, second = Line(app), Line(app)
    session = await first.begin()
    first.silence = 4.0
    with pytest.raises(Conflict):
        await second.begin()
    second.feed.lost()
    await first.say(b"ab")
    await first.feed.apply(Ended(clean=True, reason="close"))
    assert await kept(app, session) == (RecordingState.SEALED, 2)


async def test_a_call_whose_recording_has_ended_goes_on_in_a_recording_of_its_own(app):
    sessions = []
    for number in range(3):
        line = Line(app)
        sessions.append(await line.begin())
        await line.say(sound(100, number))
        await line.feed.apply(Ended(clean=True, reason="close"))
        await sessions[-1].done.wait()
    assert [each.call_key for each in sessions] == ["call-1", "call-1~2", "call-1~3"]
    for number, session in enumerate(sessions):
        assert (await app.play(session.recording.id)).body == sound(100, number)


async def test_audio_of_another_kind_never_continues_a_recording(app):
    first, second = Line(app), Line(app)
    session = await first.begin()
    await first.say(b"ab")
    first.feed.lost()
    other = await second.begin(media=STEREO)
    assert other is not session
    assert other.call_key == "call-1~2"


async def test_a_recorder_that_names_no_call_is_told_how_to(app):
    line = Line(app)
    with pytest.raises(Invalid, match="names no call") as refused:
        await line.begin(key=None)
    assert "call_key" in refused.value.hint
    assert app.vault.ingest.unfinished == 0


async def test_an_end_that_is_not_clean_leaves_the_recording_to_its_grace(app):
    line = Line(app)
    session = await line.begin()
    await line.say(b"ab" * 800)
    await line.feed.apply(Ended(clean=False, reason="gone"))
    assert session.ended is None
    assert session.detached_at is not None
    await app.vault.ingest.truncate_all("recorder_gone", uploading=False)
    assert await kept(app, session) == (RecordingState.TRUNCATED, 1600)


async def test_a_recorders_own_pause_ends_with_its_connection(app):
    first, second = Line(app), Line(app)
    session = await first.begin()
    await first.say(b"ab" * 800)
    await first.feed.apply(Paused())
    await first.say(b"xx" * 800)
    assert session.appended == 1600
    first.feed.lost()
    assert await second.begin() is session
    await second.say(b"cd" * 800)
    await second.feed.apply(Ended(clean=True, reason="close"))
    assert await kept(app, session) == (RecordingState.SEALED, 3200)
    assert [entry["actor"] for entry in await app.audit("recording.paused")] == ["tok_" + "0" * 32 + " recorder"]


def recorder_pauses(app, line):
    return line.feed.apply(Paused())


def somebody_pauses(app, line):
    return app.vault.notes.pause(line.feed.session)


def somebody_resumes(app, line):
    return app.vault.notes.resume(line.feed.session)


@pytest.mark.parametrize(
    "acts",
    [
        (somebody_pauses, recorder_pauses),
        (recorder_pauses, somebody_pauses),
        (recorder_pauses, somebody_resumes, somebody_pauses),
    ],
)
async def test_a_pause_that_somebody_else_asked_for_outlives_the_connection(app, acts):
    first, second = Line(app), Line(app)
    session = await first.begin()
    await first.say(b"ab" * 800)
    for act in acts:
        await act(app, first)
    first.feed.lost()
    assert await second.begin() is session
    await second.say(b"xx" * 800)
    assert session.appended == 1600
    await second.feed.apply(Resumed())
    await second.say(b"cd" * 800)
    await second.feed.apply(Ended(clean=True, reason="close"))
    assert await kept(app, session) == (RecordingState.SEALED, 3200)


async def test_time_that_is_missing_during_a_pause_is_the_pauses_and_not_counted_twice(app):
    line = Line(app)
    session = await line.begin()
    await line.say(b"ab" * 800)
    await line.feed.apply(Paused())
    await line.feed.apply(Gap(missing_ms=3_600_000))
    await line.feed.apply(Resumed())
    await line.feed.apply(Ended(clean=True, reason="close"))
    await kept(app, session)
    notes = await app.ask("GET", f"/v1/recordings/{session.recording.id}/notes", headers=PURPOSE)
    (gap,) = notes.json["gaps"]
    assert gap["reason"] == "paused"
    assert gap["missing_ms"] < 3_600_000


async def test_a_recorders_pause_ends_no_call_while_the_catalog_cannot_answer(app):
    line = Line(app)
    session = await line.begin()
    await line.say(b"ab" * 800)

    with out_of_reach(app.vault.catalog, "put_notes"):
        await line.feed.apply(Paused())
        await line.say(b"xx" * 800)
        await line.feed.apply(Resumed())
        await line.say(b"cd" * 800)
    await line.feed.apply(Ended(clean=True, reason="close"))
    assert await kept(app, session) == (RecordingState.SEALED, 3200)
    assert (await app.play(session.recording.id)).body == b"ab" * 800 + b"cd" * 800
    notes = await app.ask("GET", f"/v1/recordings/{session.recording.id}/notes", headers=PURPOSE)
    (gap,) = notes.json["gaps"]
    assert (gap["offset"], gap["reason"], gap["dropped_bytes"]) == (1600, "paused", 1600)
    assert len(await app.audit("recording.paused")) == len(await app.audit("recording.resumed")) == 1


@pytest.mark.parametrize("afterwards", ["an end", "a pause", "more facts"])
async def test_late_facts_wait_while_the_catalog_cannot_answer(app, afterwards):
    line = Line(app)
    session = await line.begin()
    await line.say(b"ab" * 800)

    with out_of_reach(app.vault.catalog, "revise_facts"):
        await line.feed.apply(Facts(facts=CallFacts(caller="+442079460999", extra={"queue": "admissions"})))
        await line.feed.apply(Facts(facts=CallFacts(extra={"agent": "7"})))
    match afterwards:
        case "a pause":
            await line.feed.apply(Paused())
        case "more facts":
            await line.feed.apply(Facts(facts=CallFacts(extra={"language": "cy"})))
    await line.feed.apply(Ended(clean=True, reason="close"))
    assert (await kept(app, session))[0] is RecordingState.SEALED
    facts = facts_of(app.vault.keyring, await app.vault.catalog.recording(session.recording.id))
    assert facts.caller == "+442079460999"
    assert facts.extra.items() >= {"queue": "admissions", "agent": "7"}.items()
    assert len(await app.audit("recording.facts_revised")) == 1


async def test_late_facts_never_pass_for_the_terms_of_an_upload(app):
    line = Line(app)
    session = await line.begin()
    await line.say(b"ab" * 800)
    await line.feed.apply(Facts(facts=CallFacts(extra={"upload_length": "1600", "grace_seconds": "1", "queue": "a"})))
    session.recall(facts_of(app.vault.keyring, session.recording).extra)
    assert (session.resumable, session.grace) == (False, None)
    await line.feed.apply(Ended(clean=True, reason="close"))
    await kept(app, session)
