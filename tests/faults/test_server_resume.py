"""Interrupted calls that continue across restarts, bursts and races: byte for byte what was sent."""

import asyncio
import hashlib
import random

from tests.helpers.recorder import Line, durable_bytes, serving, until
from tests.helpers.server import TENANT, make_site
from vault.model import RecordingState


async def test_a_restart_after_the_newest_journal_file_was_released_continues_where_the_stored_bytes_end(
    tmp_path, monkeypatch
):
    site = await make_site(
        tmp_path, server={"resume_grace": "30s"}, journal={"file_bytes": "64KiB"}, segments={"max_age": "1h"}
    )
    data, other = random.randbytes(200_000), random.randbytes(1_000)
    async with serving(site, monkeypatch) as (recorder, vault, _):
        neighbour, line = Line(recorder, "neighbour"), Line(recorder, "call")
        neighbour.say(other)  # keeps the first journal file, and with it released bytes of the call
        line.say(data[:30_000])
        await until(lambda: durable_bytes(vault, "neighbour") == 1_000 and durable_bytes(vault, "call") == 30_000)
        line.say(data[30_000:150_000])
        await until(lambda: durable_bytes(vault, "call") == 150_000)
        await vault.storer.drain(vault.ingest.live_call(TENANT, "call"))
        for each in (neighbour, line):
            each.task.cancel()
        await until(lambda: not vault.ingest.uploading)
    async with serving(site, monkeypatch) as (recorder, vault, _):
        assert (await recorder.head("call"))[0] == 150_000
        assert await recorder.audio("call") == data[:150_000]
        status, _, receipt = await recorder.put("call", data[150_000:], **{"Upload-Offset": "150000"})
        assert (status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())
        status, _, receipt = await recorder.put("neighbour", other)
        assert (status, receipt["sha256"]) == (201, hashlib.sha256(other).hexdigest())
        await recorder.ends_as("call", "sealed")
        assert await recorder.audio("call") == data


async def test_a_prefix_sent_again_in_one_burst_loses_nothing_behind_it(tmp_path, monkeypatch):
    site = await make_site(tmp_path)
    data = random.randbytes(1_000_000)
    async with serving(site, monkeypatch) as (recorder, vault, _):
        line = Line(recorder, "call")
        line.say(data[:10_000])
        await until(lambda: durable_bytes(vault, "call") == 10_000)
        line.task.cancel()
        await until(lambda: not vault.ingest.uploading)
        authorise = type(vault.access).authorise

        async def slowly(*positional, **named):
            await asyncio.sleep(0.1)  # meanwhile as much of the body arrives as the server will buffer
            await authorise(*positional, **named)

        monkeypatch.setattr(type(vault.access), "authorise", slowly)
        for key in ("call", "another"):
            status, _, receipt = await recorder.put(key, data)
            assert (status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())


async def test_a_recorder_that_returns_while_its_recording_is_being_closed_is_refused_cleanly(tmp_path, monkeypatch):
    site = await make_site(tmp_path, server={"resume_grace": "500ms"})
    data = random.randbytes(20_000)
    async with serving(site, monkeypatch) as (recorder, vault, _):
        line = Line(recorder, "call")
        line.say(data[:10_000])
        await until(lambda: durable_bytes(vault, "call") == 10_000)
        line.task.cancel()
        committing = asyncio.Event()
        entry_type = type(vault.ingest.live_call(TENANT, "call").entry)
        end = entry_type.end

        async def slow_end(entry, reason):
            committing.set()
            ended = asyncio.create_task(end(entry, reason))
            await asyncio.sleep(0.5)
            await ended

        monkeypatch.setattr(entry_type, "end", slow_end)
        await asyncio.wait_for(committing.wait(), 5)
        status, _, problem = await recorder.put("call", data[10_000:], **{"Upload-Offset": "10000"})
        assert (status, problem["title"]) == (409, "conflict")
        await recorder.ends_as("call", RecordingState.TRUNCATED.value)
        assert await recorder.audio("call") == data[:10_000]


async def test_a_recorder_that_falls_silent_after_the_vault_itself_was_slow_is_still_sent_away(tmp_path, monkeypatch):
    site = await make_site(tmp_path, server={"idle_timeout": "400ms", "resume_grace": "10s"})
    async with serving(site, monkeypatch) as (recorder, vault, _):
        write = type(vault.ingest).write

        async def slowly(ingest, session, piece):
            await asyncio.sleep(1.0)  # longer than a recorder may be silent, and no fault of its
            await write(ingest, session, piece)

        monkeypatch.setattr(type(vault.ingest), "write", slowly)
        line = Line(recorder, "call")
        line.say(b"x" * 5_000)
        await asyncio.sleep(0.8)
        assert not line.task.done()
        status, _, problem = await asyncio.wait_for(line.task, 5)
        assert (status, problem["title"]) == (408, "upload stalled")
        assert await recorder.audio("call") == b"x" * 5_000
