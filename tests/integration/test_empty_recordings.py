"""However a recording ends with nothing acknowledged: it stays listed as empty, and its call key is free again."""

import asyncio
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest

from tests.helpers.app import PCMU, PURPOSE, TENANTS, app, out_of_reach, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.live_line import Line
from tests.helpers.recorder import until
from tests.helpers.restores import MEDIA, TENANT, Site, who
from tests.helpers.s3clients import BUCKET, HEAD
from tests.helpers.s3requests import ask, begun, listing, part, recorder
from tests.helpers.uploads import Resumable, Tus
from vault.errors import Conflict, DiskFull, JournalFull
from vault.model import CallFacts, RecordingState, Role
from vault.protocol.live.events import Audio, Ended
from vault.retention.periods import Period
from vault.services.ingest.sessions import CallStart

__all__ = ["app", "recorder"]

AUDIO = sound(3_000)


@contextmanager
def refusing(app, error):
    """Let nothing into the journal until the block ends."""

    def refused(*_, **__):
        raise error

    with pytest.MonkeyPatch.context() as full:
        full.setattr(type(app.vault.journal), "open", refused)
        yield


def put(app, key, audio=AUDIO, media=PCMU, **headers):
    return app.ask(
        "PUT",
        f"/v1/ingest/{TENANTS[0]}/{key}",
        Role.RECORDER,
        data=audio,
        headers={"Content-Type": media, **headers},
    )


async def refused_by_the_disk(app, recorder, key):
    with refusing(app, DiskFull("no room")):
        assert (await put(app, key)).status == 507


async def refused_by_the_journal(app, recorder, key):
    with refusing(app, JournalFull("no room", retry_after_seconds=1)):
        assert (await put(app, key)).status == 503


async def tus_upload_that_is_never_sent(app, recorder, key):
    await Tus(app).made(6, meta={"call_key": key})


async def tus_upload_of_unknown_length(app, recorder, key):
    await Tus(app).made(meta={"call_key": key})


async def tus_upload_that_is_withdrawn(app, recorder, key):
    path = await Tus(app).made(6, meta={"call_key": key})
    assert (await Tus(app).ask("DELETE", path)).status == 204


async def parts_that_are_aborted(app, recorder, key):
    assert (await ask(app, recorder, "DELETE", await begun(app, recorder, key)))[0] == 204


async def parts_that_never_come(app, recorder, key):
    await begun(app, recorder, key)


async def live_call_that_is_lost(app, recorder, key):
    line = Line(app)
    await line.begin(key)
    line.feed.lost()


async def live_call_that_hangs_up(app, recorder, key):
    line = Line(app)
    await line.begin(key)
    await line.feed.apply(Ended(clean=True, reason="close"))


async def live_call_under_way_at_the_stop(app, recorder, key):
    await Line(app).begin(key)
    await app.vault.ingest.truncate_all("shutdown", uploading=True)


async def upload_that_makes_way(app, recorder, key):
    await tus_upload_that_is_never_sent(app, recorder, key)
    session = app.vault.ingest.live_call(TENANTS[0], key)
    app.vault.ingest.displace(session)
    await until(session.done.is_set)


async def upload_cancelled_as_its_row_is_written(app, recorder, key):
    """As a token that is revoked or a stop does to a request."""
    create, reached = app.vault.catalog.create_recording, asyncio.Event()

    async def created(*args, **words):
        reached.set()
        await create(*args, **words)

    with pytest.MonkeyPatch.context() as slow:
        slow.setattr(app.vault.catalog, "create_recording", created)
        task = asyncio.create_task(Line(app).begin(key))
        await reached.wait()
        await asyncio.sleep(0)  # the catalog has it now
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await until(lambda: app.vault.ingest.live_call(TENANTS[0], key) is not None)


WAYS = (
    refused_by_the_disk,
    refused_by_the_journal,
    tus_upload_that_is_never_sent,
    tus_upload_of_unknown_length,
    tus_upload_that_is_withdrawn,
    parts_that_are_aborted,
    parts_that_never_come,
    live_call_that_is_lost,
    live_call_that_hangs_up,
    live_call_under_way_at_the_stop,
    upload_that_makes_way,
    upload_cancelled_as_its_row_is_written,
)


async def put_away(app):
    """Let every grace run out that runs, and everything that has ended be stored."""
    await app.vault.ingest.truncate_all("recorder_gone", uploading=False)
    async with asyncio.timeout(10):
        await asyncio.gather(*(each.done.wait() for each in app.vault.ingest._by_id.values() if each.ended))


async def rows(app):
    """Return each recording's id with its state and reason, oldest first."""
    found = (await app.ask("GET", "/v1/recordings")).json["recordings"]
    return {each["id"]: (each["state"], each["state_reason"]) for each in reversed(found)}


async def test_however_a_recording_ends_empty_its_call_key_is_free_and_it_stays_listed(app, recorder):
    for number, way in enumerate(WAYS):
        key = f"call-{number}.wav"
        await way(app, recorder, key)
        await put_away(app)
        (empty,) = [each for each, found in (await rows(app)).items() if found == ("truncated", "empty")][number:]
        assert (await app.ask("HEAD", f"/v1/ingest/{TENANTS[0]}/{key}", Role.RECORDER)).status == 404, way
        answer = await put(app, key)
        assert answer.status == 201, (way, answer.body)
        assert answer.json["recording_id"] != empty, way
        assert (await app.play(answer.json["recording_id"])).body == AUDIO, way
        shown = (await app.ask("GET", f"/v1/recordings/{empty}")).json
        assert (shown["bytes"], shown["call"]["call_key"]) == (0, key), way
        assert (await app.ask("GET", f"/v1/recordings/{empty}/why")).status == 200, way
        assert (await app.play(empty)).body == b"", way
    assert list((await rows(app)).values()) == [("truncated", "empty"), ("sealed", None)] * len(WAYS)
    causes = [entry["detail"].get("cause") for entry in await app.audit("recording.truncated")]
    assert causes.count("recorder_gone") == 7, "each grace ended one"
    assert {"terminated", "aborted", "shutdown", "displaced", None} <= {*causes}


async def test_an_empty_recording_is_found_by_number_held_swept_and_certified_like_any_other(app):
    with refusing(app, DiskFull("no room")):
        for key in ("gone", "kept"):
            assert (await put(app, key, **{"Call-From": "+441632960111"})).status == 507
    kept = app.vault.ingest.live_call(TENANTS[0], "kept").recording.id
    assert (await app.hold(kept)).status == 201
    await put_away(app)
    found = await app.ask("GET", "/v1/recordings?caller=%2B441632960111", headers=PURPOSE)
    gone, held = sorted(each["id"] for each in found.json["recordings"])
    assert held == kept
    second = (await put(app, "kept")).json["recording_id"]
    app.clock.advance(days=12)
    assert (await app.sweep())["shredded"] == 2
    assert (await app.ask("GET", f"/v1/recordings/{kept}")).json["state"] == "truncated"
    await app.certified()
    for each in (gone, second):
        page = (await app.ask("GET", f"/v1/certificates?recording={each}")).json["certificates"]
        assert [certificate["status"] for certificate in page] == ["final", "provisional"]
    places = [(await app.vault.catalog.recording(each)).audio for each in (gone, kept, second)]
    assert len({*places}) == 3, "a coordinate was given out twice"


async def test_what_was_acknowledged_and_dropped_by_a_pause_keeps_its_call_key(app):
    path = await Tus(app).made(6, meta={"call_key": "paused"})
    recording = path.rpartition("/")[2]
    assert (await app.ask("POST", f"/v1/recordings/{recording}/pause", body={})).status == 200
    answer = await Tus(app).patch(path, 0, b"abc")
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "3")
    await put_away(app)
    assert (await rows(app))[recording] == ("truncated", "recorder_gone")
    assert (await put(app, "paused")).status == 409


async def test_what_was_answered_as_complete_stays_sealed_and_keeps_its_call_key_although_it_has_no_bytes(
    app, recorder
):
    with refusing(app, DiskFull("no room")):
        assert (await put(app, "again")).status == 507
    assert (await put(app, "again", b"")).status == 201
    address = await begun(app, recorder, "parts.wav")
    _, _, headers = await ask(app, recorder, "PUT", part(address, 1))
    document = listing((1, headers["ETag"].strip('"')))
    assert (await ask(app, recorder, "POST", address, body=document))[0] == 200
    await put_away(app)
    assert list((await rows(app)).values()) == [("sealed", None)] * 2
    for key in ("again", "parts.wav"):
        assert (await put(app, key)).status == 409


async def test_no_client_begins_a_recording_by_saying_that_it_is_empty(app, recorder):
    assert (await put(app, "http", b"")).status == 422
    assert (await Tus(app).create(0)).status == 422
    assert (await Resumable(app).begin(complete=True)).status == 422
    assert (await ask(app, recorder, "PUT", f"/s3/{BUCKET}/object.wav"))[0] == 400
    assert await rows(app) == {}


async def test_a_client_that_comes_while_an_empty_recording_is_put_away_is_taken_in_or_put_off(app, monkeypatch):
    await tus_upload_that_is_withdrawn(app, None, "soon")  # its manifest is on its way
    assert (await put(app, "soon")).status == 201
    with out_of_reach(app.vault.store, "put"):
        await tus_upload_that_is_withdrawn(app, None, "later")
        monkeypatch.setattr("vault.server.ingest.uploading._PUT_AWAY_SECONDS", 0.1)
        answer = await put(app, "later")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    await put_away(app)
    assert (await put(app, "later")).status == 201


async def test_of_two_clients_with_a_freed_call_key_one_is_taken_in(app):
    with refusing(app, DiskFull("no room")):
        await put(app, "raced")
    bodies = [sound(2_000, seed) for seed in range(6)]
    ended = app.vault.ingest.truncate_all("recorder_gone", uploading=False)
    _, *answers = await asyncio.gather(ended, *(put(app, "raced", body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 5
    (taken,) = [answer.json["recording_id"] for answer in answers if answer.status == 201]
    assert (await app.play(taken)).body in bodies


async def test_what_follows_an_empty_recording_by_name_is_still_found(app, recorder):
    address = await begun(app, recorder, "file.wav")
    assert (await ask(app, recorder, "PUT", f"/s3/{BUCKET}/file.wav", body=HEAD + AUDIO))[0] == 200
    assert (await ask(app, recorder, "DELETE", address))[0] == 204
    await put_away(app)
    app.vault.call_keys._remembered.clear()
    status, _, headers = await ask(app, recorder, "HEAD", f"/s3/{BUCKET}/file.wav")
    assert (status, int(headers["Content-Length"])) == (200, len(HEAD + AUDIO))
    assert (await ask(app, recorder, "PUT", f"/s3/{BUCKET}/file.wav", body=HEAD + AUDIO))[0] == 200
    assert await app.vault.call_keys.newest(TENANT, "file.wav") == 2, "the same body was recorded again"
    line = Line(app)
    session = await line.begin("file.wav")
    assert session.call_key == "file.wav~3"


async def test_a_live_call_after_an_empty_one_has_the_same_name(app):
    await live_call_that_hangs_up(app, None, "live")
    await put_away(app)
    line = Line(app)
    session = await line.begin("live")
    await line.feed.apply(Audio(b"ab"))
    await line.feed.apply(Ended(clean=True, reason="close"))
    await put_away(app)
    assert session.call_key == "live"
    assert list((await rows(app)).values()) == [("truncated", "empty"), ("sealed", None)]


# -- through the death of a process, and of a catalog ------------------------------------------------------------


@pytest.fixture
async def site():
    with memory_directory() as base:
        made = Site(base)
        await made.create()
        yield made


def call(key, days):
    return CallStart(
        tenant=TENANT,
        call_key=key,
        media=MEDIA,
        facts=CallFacts(),
        started_at=None,
        retention=Period(timedelta(days=days)),
    )


async def test_a_kill_between_row_and_journal_frees_the_call_key_once_the_grace_is_over(site):
    async with site.open(background=False) as vault:
        row, _ = await vault.ingest._beginning.create(call("killed", 30), actor=who("pbx", Role.RECORDER))
    async with site.open() as vault:
        live = vault.ingest.live(row.id)
        assert live.call_key == "killed"
        await vault.ingest.truncate_all("recorder_gone", uploading=False)
        async with asyncio.timeout(10):
            await live.done.wait()
        assert (await vault.catalog.recording(row.id)).state_reason == "empty"
        await site.survives(vault, (await site.record(vault, "killed", days=30)).id)


@pytest.mark.parametrize("loss", ["node", "file"])
async def test_a_recording_whose_acknowledged_bytes_were_lost_is_never_called_empty(site, loss):
    async with site.open(background=False) as vault:
        session = await site.begin(vault, "lost", AUDIO, days=30)
    journals = [*site.config.journal_path.glob("**/journal-*.cvj")]
    assert journals
    for journal in journals:
        damaged = journal.read_bytes()
        journal.write_bytes(damaged[:8] + bytes([damaged[8] ^ 1]) + damaged[9:])
    async with site.open() as vault:
        if loss == "file":
            await vault.ingest.truncate_all("recorder_gone", uploading=False)
            (live,) = vault.ingest._by_id.values()
        else:
            vault.ingest._by_id.clear()
            await vault.ingest.abandon(vault.ingest.node)
            live = vault.ingest.live(session.recording.id)
        async with asyncio.timeout(10):
            await live.done.wait()
        row = await vault.catalog.recording(session.recording.id)
        assert (row.stored_bytes, row.state) == (0, RecordingState.TRUNCATED)
        assert row.state_reason == ("recorder_gone" if loss == "file" else "node_lost")
        with pytest.raises(Conflict):
            await vault.ingest.start(call("lost", 30), actor=who("pbx", Role.RECORDER))


async def test_a_catalog_from_before_the_end_of_an_empty_recording_finds_both_by_their_objects(site):
    for open_in_backup in (False, True):
        key = f"call-{open_in_backup}"
        async with site.open() as vault:
            if not open_in_backup:
                await site.back_up()
            session = await vault.ingest.start(call(key, 90), actor=who("pbx", Role.RECORDER))
            if open_in_backup:
                await site.back_up()
            await vault.ingest.finish(session, ended="truncated:recorder_gone")
            async with asyncio.timeout(10):
                await session.done.wait()
            # Its period comes before that of the empty one: a listing finds it first.
            later = await site.record(vault, key, days=30)
        site.lose_catalog()
        await site.restore()
        async with site.open() as vault:
            row = await vault.catalog.recording(session.recording.id)
            assert (row.state, row.state_reason) == (RecordingState.TRUNCATED, "empty")
            await site.survives(vault, later.id)
            found = await vault.search.call(TENANT, key)
            assert found is None if open_in_backup else found.id == later.id
