"""Recorders on plain HTTP whose connection is dead without a word, and that come again."""

import asyncio

import pytest

from tests.helpers.app import PCMU, SETTINGS, TENANTS, app, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.recorder import until
from tests.helpers.uploads import Wire
from vault.model import Role

__all__ = ("app",)

CALL = f"/v1/ingest/{TENANTS[0]}/call"
DATA = sound(3_000)


@pytest.fixture
async def dead(app):
    """A recorder that has sent a third of its call, and of which nothing more will be heard."""
    line = await Wire.to(app)
    line.send("PUT", CALL, DATA[:1_000], Content_Type=PCMU, Content_Length=str(len(DATA)))
    await until(lambda: (live := session(app)) is not None and live.durable == 1_000)
    yield line
    line.close()


def session(app):
    return app.vault.ingest.live_call(TENANTS[0], "call")


def gone_by(app):
    """Let its time go by."""
    session(app).feed.patience = 0.0


async def put(app, data, **headers):
    sent = {"Content-Type": PCMU, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await app.ask("PUT", CALL, Role.RECORDER, data=data, headers=sent)


@pytest.mark.parametrize("offset", [None, 1_000])
async def test_a_recorder_that_comes_again_takes_the_place_of_its_dead_connection(app, dead, offset):
    gone_by(app)
    answer = await put(app, DATA[offset:], **({"Upload_Offset": str(offset)} if offset else {}))
    assert (answer.status, answer.json["bytes"], answer.json["state"]) == (201, 3_000, "sealed")
    assert (await app.play(answer.json["recording_id"])).body == DATA
    assert (await dead.answer())[0] == 423


async def test_a_connection_that_speaks_is_not_replaced(app, dead):
    assert (await put(app, DATA)).status == 409
    dead.write(DATA[1_000:])
    assert (await dead.answer())[0] == 201


async def test_a_recorder_that_is_held_up_by_the_vault_is_not_silent(app, dead, monkeypatch):
    held = asyncio.Event()

    async def full(*_):
        await held.wait()

    monkeypatch.setattr(app.vault.ingest, "take", lambda *_: False)
    monkeypatch.setattr(app.vault.ingest, "write", full)
    dead.write(DATA[1_000:2_000])
    await until(lambda: not session(app).feed.silent and session(app).feed._waited() == 0.0)
    gone_by(app)
    assert (await put(app, DATA)).status == 409
    held.set()


async def test_a_file_from_rtpengine_takes_the_place_of_its_dead_attempt(app):
    head, tail = b'--b\r\nContent-Disposition: form-data; name="ngfile"\r\n\r\n', b"\r\n--b--\r\n"
    file = b"RIFF\xff\xff\xff\xffWAVE" + DATA
    sent = {
        "Content-Type": "multipart/form-data; boundary=b",
        "X-Recording-Call-ID": "c",
        "X-Recording-File-Name": "c.wav",
    }
    path = f"/v1/ingest/{TENANTS[0]}/rtpengine"
    line = await Wire.to(app)
    line.send("POST", path, head + file[:1_000], Content_Length="4000", **sent)
    await until(lambda: app.vault.ingest.live_call(TENANTS[0], "c~c.wav") is not None)
    app.vault.ingest.live_call(TENANTS[0], "c~c.wav").feed.patience = 0.0
    answer = await app.ask("POST", path, Role.RECORDER, data=head + file + tail, headers=sent)
    assert (answer.status, answer.json["bytes"]) == (201, len(file))
    line.close()


@pytest.mark.parametrize(
    ("path", "role"), [(f"/v1/ingest/{TENANTS[0]}/rtpengine", Role.RECORDER), ("/v1/recordings/search", Role.AGENT)]
)
async def test_a_small_body_that_never_comes_is_not_waited_for_for_ever(path, role):
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], "idle_timeout": "1s"}) as app:
            line = await Wire.to(app)
            who = f"Bearer {app.token(role)}"
            line.send("POST", path, b"{", Content_Length="9", Content_Type="application/json", Authorization=who)
            assert (await line.answer())[0] == 408
            line.close()


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("POST", "/v1/recordings/search", Role.AGENT),
        ("POST", f"/v1/ingest/{TENANTS[0]}/rtpengine", Role.RECORDER),
        ("POST", "/v1/holds", Role.COMPLIANCE),
    ],
)
async def test_a_body_that_is_no_audio_and_drips_has_a_deadline_for_all_of_it(method, path, role):
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], "idle_timeout": "1s"}) as app:
            line = await Wire.to(app)
            who = f"Bearer {app.token(role)}"
            line.send(method, path, b"{", Content_Length="900", Content_Type="application/json", Authorization=who)

            async def drip():
                while True:
                    await asyncio.sleep(0.2)
                    line.write(b" ")

            dripping = asyncio.create_task(drip())
            async with asyncio.timeout(3):
                assert (await line.answer())[0] == 408
            dripping.cancel()
            line.close()
