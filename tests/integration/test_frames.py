"""What a WebSocket client sends byte by byte: masked frames only, and a call within the time for one."""

import asyncio
import base64
import os
import random
import struct
import time

import pytest
from aiohttp import WSMsgType

from tests.helpers.app import SETTINGS, TENANTS, app, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.recorder import until
from tests.helpers.uploads import Wire
from vault.model import Role

__all__ = ("app",)

PATH = f"/v1/ingest/{TENANTS[0]}/ws"
START = b'{"callSid":"call-1","sampleRate":8000,"mixType":"mono"}'


def frame(payload, opcode=2, *, masked=True):
    """Return one final frame; the mask is zero, so that the payload stands in it as it is."""
    size = len(payload)
    short, wide = (
        (size, b"")
        if size < 126
        else (126, struct.pack(">H", size))
        if size < 65_536
        else (127, struct.pack(">Q", size))
    )
    return bytes([0x80 | opcode, 0x80 * masked | short]) + wide + bytes(4 * masked) + payload


async def upgraded(app, *, token=True, protocol="audio.jambonz.org", key="call-1"):
    line = await Wire.to(app)
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    if token:
        headers["Sec-WebSocket-Protocol"] = protocol
        headers["Authorization"] = f"Bearer {app.token(Role.RECORDER)}"
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    line.write(f"GET {PATH}?call_key={key} HTTP/1.1\r\nHost: vault\r\n{head}\r\n".encode())
    assert b" 101 " in await line._reader.readuntil(b"\r\n\r\n")
    return line


async def close_of(line):
    """Return the code of the server's close."""
    async with asyncio.timeout(5):
        while True:
            first, length = await line._reader.readexactly(2)
            payload = await line._reader.readexactly(length)
            if first & 0x0F == WSMsgType.CLOSE:
                return struct.unpack(">H", payload[:2])[0]


async def test_a_frame_without_a_mask_ends_the_connection_and_what_came_before_it_is_kept(app):
    audio = sound(2_000)
    line = await upgraded(app)
    line.write(frame(START, 1) + frame(audio) + frame(b"never", masked=False) + frame(b"nor this"))
    assert await close_of(line) == 1002
    session = app.vault.ingest.live_call(TENANTS[0], "call-1")
    await until(lambda: session.durable == len(audio))
    line.close()


@pytest.mark.parametrize("opcode", [1, 8, 9, 10], ids=["text", "close", "ping", "pong"])
async def test_no_kind_of_frame_may_come_without_a_mask(app, opcode):
    line = await upgraded(app)
    line.write(frame(b"", opcode, masked=False))
    assert await close_of(line) == 1002
    line.close()


async def test_masked_frames_of_every_length_are_taken_however_the_network_cuts_them(app):
    dice = random.Random(3)
    pieces = [sound(size, seed=size) for size in (1, 2, 124, 125, 126, 127, 800, 65_535, 65_536, 70_000)]
    sent = b"".join([frame(START, 1), *[frame(piece) for piece in pieces], frame(b"", 9), frame(b"last")])
    line = await upgraded(app)
    at = 0
    while at < len(sent):
        size = dice.choice((1, 1, 2, 3, 5, 9, 2_000, 30_000))
        line.write(sent[at : at + size])
        at += size
        await asyncio.sleep(0)
    session = None

    def whole():
        nonlocal session
        session = app.vault.ingest.live_call(TENANTS[0], "call-1")
        return session is not None and session.durable == sum(map(len, pieces)) + 4

    await until(whole)
    line.write(frame(struct.pack(">H", 1000), 8))
    assert await close_of(line) == 1000
    assert (await app.play(session.recording.id)).body == b"".join(pieces) + b"last"
    line.close()


@pytest.mark.parametrize("chatter", [frame(b"x", 9), frame(b"", 10)], ids=["ping", "pong"])
async def test_a_ping_is_no_first_message(chatter):
    with memory_directory() as base:
        async with running(base, server={**SETTINGS["server"], "idle_timeout": "1s"}) as app:
            began = time.monotonic()
            line = await upgraded(app, token=False)

            async def chat():
                while True:
                    line.write(chatter)
                    await asyncio.sleep(0.1)

            chatting = asyncio.create_task(chat())
            assert await close_of(line) == 1001
            chatting.cancel()
            assert time.monotonic() - began < 2
            line.close()
