"""Crowds: strangers without a token, connections beyond the bound, readers that do not read."""

import asyncio
import gc
import io
import socket
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.helpers.app import PCMU, SETTINGS, TENANTS, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.frames import close_of, frame, upgraded
from tests.helpers.recorder import until
from tests.helpers.uploads import Wire
from vault.config import parse_config
from vault.model import Role
from vault.server.connections.connections import Bounds
from vault.server.connections.http_protocol import HttpLine

CALL = f"/v1/ingest/{TENANTS[0]}/call"


@asynccontextmanager
async def crowded(**server):
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], **server}) as app:
            yield app


def measured(app, name, **labels):
    return app.vault.metrics.registry.get_sample_value(f"callvault_{name}", labels) or 0


async def closed(line, *, within):
    """Wait until the server has closed the connection."""
    async with asyncio.timeout(within):
        try:
            while await line._reader.read(1 << 16):
                pass
        except ConnectionError:
            pass


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET /healthz HTTP/1.1\r\nHost: v", b"GET /healthz HTTP/1.1\r\nHost: vault\r\n\r\n"],
    ids=["nothing", "half a head", "a request that needs no token"],
)
async def test_a_connection_without_a_credential_has_a_deadline_whatever_it_sends(begun):
    async with crowded(unauthenticated_timeout="1s") as app:
        line = await Wire.to(app)
        began = time.monotonic()

        async def drip():
            for byte in begun:
                line.write(bytes([byte]))
                await asyncio.sleep(0.02)
            while True:
                await asyncio.sleep(0.1)
                if begun and not begun.endswith(b"\r\n\r\n"):
                    line.write(b"x")

        dripping = asyncio.create_task(drip())
        await closed(line, within=4)
        dripping.cancel()
        assert time.monotonic() - began > 0.9
        assert measured(app, "connections_ended_total", reason="unauthenticated") == 1
        line.close()


async def test_a_call_under_way_and_recorders_with_tokens_are_not_kept_out_by_a_crowd_of_strangers():
    async with crowded(max_connections=40, max_unauthenticated=10) as app:
        call = await Wire.to(app)
        audio = sound(3_000)
        call.send("PUT", CALL, audio[:1_000], Content_Type=PCMU, Content_Length=str(len(audio)))
        await until(lambda: (live := app.vault.ingest.live_call(TENANTS[0], "call")) is not None and live.durable > 0)
        crowd = [await Wire.to(app) for _ in range(25)]
        await until(lambda: measured(app, "connections", state="unauthenticated") == 10)
        assert await app.upload("another", sound(500))
        await until(lambda: measured(app, "connections_ended_total", reason="displaced") > 12)
        assert measured(app, "connections", state="unauthenticated") <= 10
        call.write(audio[1_000:])
        assert (await call.answer())[0] == 201
        for each in (*crowd, call):
            each.close()


async def test_upgrades_without_a_token_that_ping_end_and_leave_room_for_who_has_one():
    async with crowded(max_unauthenticated=8, unauthenticated_timeout="1s", idle_timeout="1s") as app:
        crowd = [await upgraded(app, token=False) for _ in range(8)]
        for each in crowd:
            each.write(frame(b"", 9))
        recorder = await upgraded(app)
        recorder.write(frame(b'{"callSid":"call-1","sampleRate":8000,"mixType":"mono"}', 1) + frame(sound(800)))
        await until(lambda: (live := app.vault.ingest.live_call(TENANTS[0], "call-1")) is not None and live.durable)
        for each in crowd:
            await closed(each, within=4)
        assert measured(app, "connections", state="unauthenticated") == 0
        recorder.write(frame(b"\x03\xe8", 8))
        assert await close_of(recorder) == 1000
        for each in (*crowd, recorder):
            each.close()


async def test_beyond_the_bound_of_all_connections_the_next_one_hears_503_and_those_there_are_stay():
    async with crowded(max_connections=5, max_unauthenticated=5) as app:
        known = []
        for number in range(5):
            line = await Wire.to(app)
            line.send("HEAD", f"{CALL}-{number}")
            assert (await line.head())[0] == 404
            known.append(line)
        assert measured(app, "connections", state="authenticated") == 5
        late = await Wire.to(app)
        late.send("PUT", CALL, b"x", Content_Length="1")
        status, headers = await late.head()
        assert (status, headers["Retry-After"]) == (503, "5")
        known[0].send("HEAD", CALL)
        assert (await known[0].head())[0] == 404
        known.pop().close()
        await until(lambda: measured(app, "connections", state="authenticated") == 4)
        line = await Wire.to(app)
        line.send("HEAD", CALL)
        assert (await line.head())[0] == 404
        for each in (*known, line, late):
            each.close()


async def test_connections_of_every_listener_count_together():
    with memory_directory() as base:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        token = "tok_" + "0" * 32
        streams = {"audiosocket": {"listen": f"127.0.0.1:{port}", "tenant": TENANTS[0], "token": token}}
        bounds = {"max_connections": 6, "max_unauthenticated": 3, "unauthenticated_timeout": "1s"}
        async with running(base, server={**SETTINGS["server"], **bounds}, streams=streams) as app:
            lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            wire = await Wire.to(app)
            await until(lambda: measured(app, "connections", state="unauthenticated") == 3)
            for _, writer in lines:
                writer.write(b"\x01")
            for reader, writer in lines:
                async with asyncio.timeout(3):
                    assert await reader.read() == b""
                writer.close()
            wire.close()


@pytest.mark.parametrize(
    ("descriptors", "stated", "most"),
    [
        (1_024, {}, 448),
        (20_000, {}, 9_488),
        (1 << 20, {}, 523_776),
        (1_024, {"max_connections": 100}, 100),
        (1_024, {"max_connections": 5_000}, 448),
        (64, {}, 1),
    ],
)
def test_connections_leave_a_reserve_of_descriptors_however_many_are_configured(descriptors, stated, most):
    bounds = Bounds.of(parse_config({"server": stated}, base=Path()).server, descriptors=descriptors)
    assert bounds.most == most
    assert bounds.most_strangers == max(1, most // 4)


SLOW = {"max_bytes": "8MiB"}


async def reader_of(app, recording, who=Role.COMPLIANCE):
    """Ask for the audio over a connection with a small window, and read none of it."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    place.setblocking(False)
    host, _, port = app.url.removeprefix("http://").rpartition(":")
    await asyncio.get_running_loop().sock_connect(place, (host, int(port)))
    line = Wire(app, *await asyncio.open_connection(sock=place, limit=1_024))
    token = f"Bearer {app.token(who)}"
    line.send("GET", f"/v1/recordings/{recording}/audio?format=raw", Authorization=token, Purpose="quality")
    return line


def counted(app, monkeypatch):
    """Return a list that gets the size of everything read from the object store."""
    taken = []
    get = app.vault.store.get

    async def counting(name, **span):
        data = await get(name, **span)
        taken.append(len(data))
        return data

    monkeypatch.setattr(app.vault.store, "get", counting)
    return taken


async def test_a_reader_that_stops_costs_a_small_window_and_is_cut_off_after_the_idle_time(monkeypatch):
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], "idle_timeout": "2s"}, segments=SLOW) as app:
            recording = await app.upload("call", io.BytesIO(sound(6 << 20)))
            taken = counted(app, monkeypatch)
            line = await reader_of(app, recording)
            await until(lambda: sum(taken) > 0)
            began = time.monotonic()
            await until(lambda: measured(app, "connections_ended_total", reason="unread") == 1, seconds=6)
            assert time.monotonic() - began > 1
            assert sum(taken) < 1 << 20
            line.close()
            assert len((await app.play(recording)).body) == 6 << 20


async def test_a_reader_that_is_slow_and_reads_is_not_cut_off():
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], "idle_timeout": "1s"}, segments=SLOW) as app:
            recording = await app.upload("call", io.BytesIO(sound(3 << 20)))
            line = await reader_of(app, recording)
            assert (await line.head())[0] == 200
            size, began = 0, time.monotonic()
            while size < 3 << 20:
                size += len(await line._reader.read(1 << 16))
                await asyncio.sleep(max(0.0, 2.5 * size / (3 << 20) - (time.monotonic() - began)))
            assert time.monotonic() - began > 2
            assert size == 3 << 20
            line.close()


async def test_requests_behind_one_that_is_being_answered_wait_outside_of_the_server():
    """The answer is not read. What comes behind it is bounded, in many heads and in one that does not end."""
    begin, field = b"GET /healthz HTTP/1.1\r\nHost: v\r\n", f"X: {'1' * 60_000}\r\n".encode()
    with memory_directory() as base:
        async with running(base, segments=SLOW) as app:
            recording = await app.upload("call", io.BytesIO(sound(6 << 20)))
            for first, each in ((b"", begin + field * 3 + b"\r\n"), (begin, field)):
                line = await reader_of(app, recording)
                await until(lambda: app.vault.playback.slots.uses)
                line.write(first)
                with suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(1):
                        for _ in range(60):
                            line.write(each)
                            await line._writer.drain()
                # By its type: isinstance asks a weak reference's object, which may be gone.
                waiting = [len(it._messages) for it in gc.get_objects() if type(it) is HttpLine]
                assert waiting or first
                assert max(waiting, default=0) <= 4
                if first:
                    await until(lambda: not app.vault.playback.slots.uses)  # the server closed it
                line.close()
                await until(lambda: not app.vault.playback.slots.uses)


async def test_a_token_has_its_share_of_playbacks_and_the_others_theirs():
    with memory_directory() as base:
        async with running(base, access={"max_playbacks": 2}, segments=SLOW) as app:
            recording = await app.upload("call", io.BytesIO(sound(6 << 20)))
            lines = [await reader_of(app, recording) for _ in range(2)]
            for line in lines:
                assert (await line.head())[0] == 200
            answer = await app.play(recording)
            assert (answer.status, answer.problem, answer.headers["Retry-After"]) == (429, "crowded", "5")
            accesses = len(await app.audit("access.play"))
            assert (await app.play(recording, Role.AGENT, headers={"Range": "bytes=0-9"})).status == 206
            assert len(await app.audit("access.play")) == accesses + 1
            for line in lines:
                line.close()
            await until(lambda: not app.vault.playback.slots.uses)
            assert (await app.play(recording, headers={"Range": "bytes=0-9"})).status == 206
