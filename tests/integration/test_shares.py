"""Two tenants, one server: none of them uses up what the other needs, and one alone may use everything."""

import asyncio
from contextlib import asynccontextmanager

from tests.helpers.app import PCMU, SETTINGS, TENANTS, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.s3clients import Recorder
from tests.helpers.s3requests import MD5, WAV, ask, begun, code, listing, part
from tests.helpers.uploads import Tus, Wire
from vault.model import Role

NORTH, SOUTH = TENANTS
AUDIO = sound(4_000)


@asynccontextmanager
async def serving(most, *, resume_grace="60s", **sections):
    with memory_directory() as base:
        server = {**SETTINGS["server"], "max_open_recordings": most, "resume_grace": resume_grace}
        async with running(base, server=server, **sections) as app:
            yield app


async def metric(app, line):
    return f"callvault_{line}\n" in (await app.ask("GET", "/metrics", None)).body.decode()


async def shown(app, recording, tenant):
    """Return a recording once it has ended."""
    session = app.vault.ingest.live(recording)
    if session is not None:
        await asyncio.wait_for(session.done.wait(), 5)
    return (await app.ask("GET", f"/v1/recordings/{recording}", tenant=tenant)).json


@asynccontextmanager
async def live(app, key, tenant):
    """A call that is being sent; yields the task, which ends with the call once the event is set."""
    over = asyncio.Event()

    async def audio():
        yield AUDIO
        await over.wait()

    sent = {"Content-Type": PCMU}
    address = f"/v1/ingest/{tenant}/{key}"
    task = asyncio.create_task(app.ask("PUT", address, Role.RECORDER, tenant=tenant, data=audio(), headers=sent))
    while (session := app.vault.ingest.live_call(tenant, key)) is None or session.durable < len(AUDIO):
        assert not task.done(), task.result().body
        await asyncio.sleep(0.005)
    try:
        yield task, over
    finally:
        over.set()
        await asyncio.gather(task, return_exceptions=True)


async def broken_off(app, key, tenant):
    """Send a beginning, and go; return the recording's id."""
    async with live(app, key, tenant) as (task, _):
        session = app.vault.ingest.live_call(tenant, key)
        task.cancel()
        while session.uploads:
            await asyncio.sleep(0.005)
        return session.recording.id


async def put(app, key, tenant):
    return await app.ask(
        "PUT", f"/v1/ingest/{tenant}/{key}", Role.RECORDER, tenant=tenant, data=AUDIO, headers={"Content-Type": PCMU}
    )


async def test_fifty_empty_uploads_of_one_tenant_do_not_keep_out_a_call_of_another():
    async with serving(50) as app:
        tus = Tus(app)
        made = [await tus.made(1000) for _ in range(50)]
        assert await metric(app, 'share_used{resource="recordings"} 50.0')
        await app.upload("call", AUDIO, tenant=SOUTH)
        assert await metric(app, 'share_displaced_total{resource="recordings"} 1.0')
        gone = made[0].rpartition("/")[2]
        ended = await shown(app, gone, NORTH)
        assert (ended["state"], ended["state_reason"]) == ("truncated", "empty")
        (entry,) = [each for each in await app.audit("recording.truncated") if each["target"] == gone]
        assert entry["detail"] == {"bytes": 0, "reason": "empty", "cause": "displaced"}
        assert (entry["tenant"], entry["actor"], entry["request_id"]) == (NORTH, "vault", None)
        assert (await tus.patch(made[0], 0, AUDIO[:1000])).status == 410
        for path in made[1:]:
            assert (await tus.patch(path, 0, AUDIO[:1000])).status == 204


async def test_one_tenant_alone_may_have_every_open_recording():
    async with serving(5) as app:
        tus = Tus(app)
        for _ in range(5):
            await tus.made(1000)
        refused = await tus.create(1000)
        assert (refused.status, refused.problem) == (503, "unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        assert await metric(app, 'share_refused_total{reason="full",resource="recordings"} 1.0')
        assert await metric(app, 'share_refused_total{reason="share",resource="recordings"} 0.0')
        assert await metric(app, 'share_displaced_total{resource="recordings"} 0.0')


async def test_what_is_being_sent_is_never_cut_and_what_waits_for_its_recorder_ends_with_all_that_came():
    async with serving(3) as app:
        waits = await broken_off(app, "waits", NORTH)
        async with live(app, "a", NORTH), live(app, "b", NORTH):
            # It was left a moment ago: its recorder may be about to come back.
            assert (await put(app, "call", SOUTH)).status == 503
            app.clock.slept += 6
            assert (await put(app, "call", SOUTH)).status == 201
            ended = await shown(app, waits, NORTH)
            assert (ended["state"], ended["state_reason"], ended["bytes"]) == ("truncated", "displaced", len(AUDIO))
            assert (await app.play(waits)).body == AUDIO
        for key in "ab":
            assert app.vault.ingest.live_call(NORTH, key) is None
        states = {each["state"] for each in (await app.ask("GET", "/v1/recordings")).json["recordings"]}
        assert states == {"sealed", "truncated"}


async def test_room_that_becomes_free_is_kept_for_the_tenant_that_was_refused():
    async with serving(2) as app, live(app, "a", NORTH), live(app, "b", NORTH) as (_, over):
        refused = await put(app, "call", SOUTH)
        assert (refused.status, refused.problem) == (503, "unavailable")
        over.set()
        while app.vault.ingest.live_call(NORTH, "b") is not None:
            await asyncio.sleep(0.005)
        for _ in range(3):
            kept = await put(app, "c", NORTH)
            assert (kept.status, kept.problem) == (503, "over_share")
            assert "share" in kept.json["detail"]
        assert int(kept.headers["Retry-After"]) > 0
        assert (await put(app, "call", SOUTH)).status == 201
        assert await metric(app, 'share_refused_total{reason="share",resource="recordings"} 3.0')
        # Nobody waits any longer than it was told, and a little.
        app.clock.slept += 8
        assert (await put(app, "c", NORTH)).status == 201


async def test_an_upload_in_parts_that_has_just_begun_is_not_cut_before_its_first_part_and_later_makes_way():
    async with serving(2) as app:
        north = recorder(app, NORTH)
        first, second = [await begun(app, north, f"{name}.wav") for name in "ab"]
        assert (await put(app, "call", SOUTH)).status == 503
        assert (await ask(app, north, "PUT", part(first, 1), body=WAV))[0] == 200
        app.clock.slept += 6
        assert (await ask(app, north, "PUT", part(first, 2), body=WAV))[0] == 200
        assert (await put(app, "call", SOUTH)).status == 201
        ended = await shown(app, second.rpartition("=")[2], NORTH)
        assert (ended["state"], ended["state_reason"], ended["bytes"]) == ("truncated", "empty", 0)
        assert (await ask(app, north, "POST", first, body=listing((1, MD5), (2, MD5))))[0] == 200


async def test_a_tenant_with_its_share_displaces_nobody():
    async with serving(4) as app:
        tus = Tus(app)
        for _ in range(4):
            await tus.made(1000)
        async with live(app, "a", SOUTH), live(app, "b", SOUTH):
            assert (await put(app, "c", SOUTH)).status == 503
            assert await metric(app, 'share_displaced_total{resource="recordings"} 2.0')


# -- the spool ------------------------------------------------------------------------------------------------------


def recorder(app, tenant):
    return Recorder.of(app.url, app.token(Role.RECORDER, tenant))


async def filled(app, uploads):
    """Let the first tenant fill the spool with one part for each upload; return their addresses."""
    north = recorder(app, NORTH)
    addresses = [await begun(app, north, f"{number}.wav") for number in range(uploads)]
    for each in addresses:
        assert (await ask(app, north, "PUT", part(each, 1), body=WAV))[0] == 200
    status, document, headers = await ask(app, north, "PUT", part(addresses[0], 2), body=WAV)
    assert (status, code(document)) == (503, "SlowDown")
    assert int(headers["Retry-After"]) > 0
    return addresses


async def test_the_room_of_the_spool_that_becomes_free_is_not_taken_by_the_tenant_that_filled_it():
    async with serving(50, parts={"max_bytes": "300KiB"}) as app:
        north, south = recorder(app, NORTH), recorder(app, SOUTH)
        addresses = await filled(app, 4)
        assert (await ask(app, south, "PUT", f"/s3/{SOUTH}/call", body=WAV))[0] == 503
        assert (await ask(app, north, "POST", addresses[0], body=listing((1, MD5))))[0] == 200
        status, document, _ = await ask(app, north, "PUT", part(addresses[1], 2), body=WAV)
        assert (status, code(document)) == (503, "SlowDown")
        assert "share" in document.decode()
        assert await metric(app, 'share_refused_total{reason="share",resource="spool"} 1.0')
        assert (await ask(app, south, "PUT", f"/s3/{SOUTH}/call", body=WAV))[0] == 200
        for each in addresses[1:]:  # what was acknowledged stays
            assert (await ask(app, north, "POST", each, body=listing((1, MD5))))[0] == 200
        assert await metric(app, 'share_used{resource="spool"} 0.0')


async def test_parts_that_nobody_completes_make_way_with_all_that_was_acknowledged():
    async with serving(50, parts={"max_bytes": "300KiB"}, resume_grace="4s") as app:
        south = recorder(app, SOUTH)
        addresses = await filled(app, 4)
        assert (await ask(app, south, "PUT", f"/s3/{SOUTH}/call", body=WAV))[0] == 503
        app.vault.parts.make_room()
        assert await metric(app, 'share_displaced_total{resource="spool"} 0.0')  # they were heard a moment ago
        app.clock.slept += 5
        assert (await ask(app, south, "PUT", f"/s3/{SOUTH}/call", body=WAV))[0] == 503
        app.vault.parts.make_room()
        app.vault.parts.make_room()
        assert await metric(app, 'share_displaced_total{resource="spool"} 1.0')
        gone = addresses[0].rpartition("=")[2]
        ended = await shown(app, gone, NORTH)
        assert (ended["state"], ended["state_reason"], ended["bytes"]) == ("truncated", "displaced", len(WAV))
        assert (await app.play(gone)).body == WAV
        await app.vault.parts.tidy()
        assert (await ask(app, south, "PUT", f"/s3/{SOUTH}/call", body=WAV))[0] == 200
        assert await metric(app, 'share_displaced_total{resource="spool"} 1.0')


async def test_a_part_that_no_share_covers_displaces_nothing():
    """300 KiB are shared by two: a part of 200 KiB fits only beside nobody, one of 400 KiB never."""
    async with serving(50, parts={"max_bytes": "300KiB"}, resume_grace="4s") as app:
        await filled(app, 4)
        app.clock.slept += 5
        for size in (200 << 10, 400 << 10):
            body = WAV + bytes(size - len(WAV))
            assert (await ask(app, recorder(app, SOUTH), "PUT", f"/s3/{SOUTH}/call", body=body))[0] == 503
            app.vault.parts.make_room()
        assert await metric(app, 'share_displaced_total{resource="spool"} 0.0')
        app.clock.slept += 60
        assert await metric(app, 'share_waiting{resource="spool"} 0.0')
        assert (await ask(app, recorder(app, SOUTH), "PUT", f"/s3/{SOUTH}/call", body=body))[0] == 503
        assert await metric(app, 'share_waiting{resource="spool"} 0.0')


async def test_one_tenant_alone_displaces_none_of_its_own_parts():
    async with serving(50, parts={"max_bytes": "300KiB"}, resume_grace="4s") as app:
        await filled(app, 4)
        app.clock.slept += 5
        app.vault.parts.make_room()
        assert await metric(app, 'share_displaced_total{resource="spool"} 0.0')


# -- requests -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def searching(app, tenant):
    """A request in work, whose body comes once the event is set."""
    over = asyncio.Event()

    async def body():
        yield b"{"
        await over.wait()
        yield b"}"

    path, headers = "/v1/recordings/search", {"Content-Type": "application/json"}
    before = app.vault.metrics.registry.get_sample_value("callvault_share_used", {"resource": "requests"})
    task = asyncio.create_task(app.ask("POST", path, Role.AGENT, tenant=tenant, data=body(), headers=headers))
    while app.vault.metrics.registry.get_sample_value("callvault_share_used", {"resource": "requests"}) == before:
        assert not task.done(), task.result().body
        await asyncio.sleep(0.005)
    try:
        yield task, over
    finally:
        over.set()
        assert (await task).status == 200


async def test_requests_of_one_tenant_leave_room_for_another_and_never_refuse_a_call():
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], "max_requests": 3}) as app:

            async def look(tenant, who=Role.AGENT):
                return await app.ask("GET", "/v1/recordings", who, tenant=tenant)

            async with searching(app, NORTH), searching(app, NORTH), searching(app, NORTH) as (task, over):
                assert (await look(NORTH)).problem == "unavailable"  # it has them all
                app.clock.slept += 5
                refused = await look(SOUTH)
                assert (refused.status, refused.problem) == (503, "unavailable")
                assert int(refused.headers["Retry-After"]) > 0
                over.set()
                await task
                kept = await look(NORTH)
                assert (kept.status, kept.problem) == (503, "over_share")
                async with searching(app, SOUTH):
                    # Recorders, who acts on a live call, health and metrics are never refused for it.
                    async with live(app, "call", NORTH):
                        recording = app.vault.ingest.live_call(NORTH, "call").recording.id
                        for act in ("pause", "resume"):
                            assert (
                                await app.ask("POST", f"/v1/recordings/{recording}/{act}", Role.AGENT)
                            ).status == 200
                    assert (await app.ask("GET", "/healthz", None)).status == 200
                    assert await metric(app, 'share_used{resource="requests"} 3.0')
                    assert (await look(NORTH, Role.OPERATOR)).status == 503
            assert (await look(NORTH, Role.OPERATOR)).status == 200
            assert (await look(SOUTH)).status == 200
            assert await metric(app, 'share_used{resource="requests"} 0.0')


async def test_a_request_that_is_refused_or_fails_gives_back_what_it_had():
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], "max_requests": 1}) as app:
            for _ in range(3):
                assert (await app.ask("GET", "/v1/recordings/rec_nonsense", Role.AGENT)).status == 404
                assert (await app.ask("GET", "/v1/recordings", "callvault_nonsense")).status == 401
                assert (await app.ask("GET", "/v1/tenants", Role.AGENT)).status == 403
            assert (await app.ask("GET", "/v1/tenants", Role.OPERATOR)).status == 200


# -- connections ----------------------------------------------------------------------------------------------------


async def knocked(app, tenant, *, sends=None):
    """Open a connection of a tenant and ask; return it and the answer's status, or begin to send a call over it."""
    wire = await Wire.to(app)
    authorization = f"Bearer {app.token(Role.RECORDER, tenant)}"
    if sends is None:
        wire.send("HEAD", f"/v1/ingest/{tenant}/none", Authorization=authorization)
        return wire, (await wire.head())[0]
    wire.send("PUT", f"/v1/ingest/{tenant}/{sends}", Authorization=authorization, Content_Length="9", Content_Type=PCMU)
    return wire, None


async def held(app, state):
    """Return how many connections there are of a kind."""
    return app.vault.metrics.registry.get_sample_value("callvault_connections", {"state": state})


async def test_connections_that_one_tenant_holds_open_make_way_for_another_and_its_requests_are_not_cut():
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], "max_connections": 4}) as app:
            waits = [await knocked(app, NORTH, sends=key) for key in "ab"]
            while await held(app, "authenticated") < 2:
                await asyncio.sleep(0.005)
            idle = [await knocked(app, NORTH) for _ in range(2)]
            assert [status for _, status in idle] == [404, 404]  # alone it may have them all
            late, status = await knocked(app, NORTH)
            assert status == 503
            south = [await knocked(app, SOUTH) for _ in range(2)]
            assert [status for _, status in south] == [404, 404]
            assert await metric(app, 'share_displaced_total{resource="connections"} 2.0')
            for wire, _ in idle:
                assert await asyncio.wait_for(wire._reader.read(), 5) == b""
            for wire, _ in waits:
                wire.write(AUDIO[:9])
                assert (await wire.answer())[0] == 201
            for wire, _ in (*waits, *idle, *south, (late, None)):
                wire.close()


async def test_a_connection_that_becomes_free_is_kept_for_the_tenant_that_was_refused():
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], "max_connections": 3}) as app:
            waits = [await knocked(app, NORTH, sends=key) for key in "abc"]
            while await held(app, "authenticated") < 3:
                await asyncio.sleep(0.005)
            assert (await app.ask("GET", "/healthz", None)).status == 200
            refused, status = await knocked(app, SOUTH)
            assert status == 503
            assert await metric(app, 'share_refused_total{reason="full",resource="connections"} 1.0')
            waits.pop()[0].close()
            while await held(app, "authenticated") > 2:
                await asyncio.sleep(0.005)
            again, status = await knocked(app, NORTH)
            assert status == 503
            assert await metric(app, 'share_refused_total{reason="share",resource="connections"} 1.0')
            got, status = await knocked(app, SOUTH)
            assert status == 404
            for wire in (refused, again, got, *(wire for wire, _ in waits)):
                wire.close()
