"""What a WebSocket client sends byte by byte: masked frames only, and a call within the time for one."""

import asyncio
import random
import struct
import time
from collections import Counter

import pytest

from tests.helpers.app import SETTINGS, TENANTS, app, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.frames import START, close_of, frame, upgraded
from tests.helpers.recorder import until
from vault.server.ingest.websocket import TURN_MESSAGES, _Line

__all__ = ("app",)


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


async def test_thousands_of_tiny_frames_in_one_piece_leave_every_turn_of_the_loop_to_others(app, monkeypatch):
    loop, turn, handled = asyncio.get_running_loop(), 0, Counter()

    def tick():
        nonlocal turn
        turn += 1
        ticking[0] = loop.call_soon(tick)

    ticking = [loop.call_soon(tick)]

    def counted(act):
        def counting(*arguments):
            handled[turn] += 1
            return act(*arguments)

        return counting

    for name in ("_take", "_settle"):  # once a message: in the turn that read it, or in the connection's task
        monkeypatch.setattr(_Line, name, counted(getattr(_Line, name)))
    tiny, pings = 6_000, 3_000
    line = await upgraded(app)
    line.write(frame(START, 1) + frame(b"ab") * tiny + frame(b"", 10) * pings + frame(b"cd") * tiny)
    await until(lambda: (session := app.vault.ingest.live_call(TENANTS[0], "call-1")) and session.durable == 4 * tiny)
    ticking[0].cancel()
    line.close()
    assert sum(handled.values()) > 2 * tiny + pings
    assert max(handled.values()) <= 2 * TURN_MESSAGES + 2


async def test_what_came_before_a_frame_without_a_mask_is_kept_however_much_it_is(app):
    tiny = 6_000
    line = await upgraded(app)
    line.write(frame(START, 1) + frame(b"ab") * tiny + frame(b"never", masked=False) + frame(b"nor this"))
    assert await close_of(line) == 1002
    session = app.vault.ingest.live_call(TENANTS[0], "call-1")
    await until(lambda: session.durable == 2 * tiny)
    line.close()
