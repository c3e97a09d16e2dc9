"""Whatever write a process dies at: no byte of an answered pause is kept, no note that was answered is lost."""

import asyncio
from datetime import timedelta

import pytest

from tests.helpers.crashing import (
    ACME,
    Faults,
    ManualClock,
    Process,
    begin,
    call,
    config_at,
    crash_is_the_end,
    memory_directory,
    person,
    play,
    start,
    storing,
)
from tests.helpers.service_steps import Stage, audit_verifies
from tests.helpers.soak import steps
from tests.helpers.trail import audit_entries
from vault.crypto.values import seal_note
from vault.errors import Conflict, Unavailable
from vault.format.notes import Document, Missing, Pause, dropped_bytes
from vault.keystore.root import file
from vault.model import CallFacts
from vault.ports.recordings import RecordingQuery
from vault.services.recordings.search import facts_of
from vault.wiring import init_vault, open_vault

BEFORE, FIRST, CARD, LAST = b"a" * 3_000, b"b" * 3_000, b"4" * 3_000, b"c" * 3_000
STREAM = BEFORE + FIRST + CARD + LAST
KEPT = BEFORE + FIRST + LAST
PAUSED, RESUMED = len(BEFORE + FIRST), len(BEFORE + FIRST + CARD)
DOCUMENT = b"<recording/>"
PBX = person("pbx")


@pytest.fixture
async def stage(monkeypatch):
    """A call under way, and nothing else."""
    monkeypatch.setattr(file, "MATERIAL_BYTES", 1 << 12)
    with memory_directory() as base:
        made = Stage(path=base / "stage")
        config, clock = config_at(made.path), ManualClock()
        await init_vault(config, trial=True, clock=clock)
        process = await start(config, clock)
        await process.vault.tenants.add(
            identifier=ACME, name=ACME, controller=ACME, contact="dpo", retention=None, keep_dtmf=True, actor=None
        )
        await begin(process.vault, call("live"), BEFORE)
        await process.abandon()
        yield made


async def record(vault, answered):
    """Continue the call where the vault says, whatever happened before; note what was answered."""
    session = vault.ingest.live_call(ACME, "live")
    at = await vault.ingest.attach(session, offset=None)
    paused = session.keeping.paused
    answered["told"].append((at, paused))
    if at < PAUSED and not paused:
        await vault.ingest.write(session, STREAM[at:PAUSED])
        at = PAUSED
    if at < RESUMED:
        await vault.notes.pause(session, actor=PBX)
        answered["paused"] = True
        await vault.ingest.write(session, STREAM[at:RESUMED])
        await vault.notes.acknowledge(session)
        at = RESUMED
    if session.keeping.paused:
        await vault.notes.document(session, media_type="text/xml", content=DOCUMENT)
        answered["document"] = True
        await vault.notes.gap(session, 40)
        await vault.notes.revise(session, CallFacts(called="+442079460999"))
        answered["facts"] = True
        answered["asked to resume"] = True
        await vault.notes.resume(session, actor=PBX)
    await vault.ingest.write(session, STREAM[at:])
    async with storing(vault):
        await vault.ingest.finish(session)
        answered["ended"] = True
        async with asyncio.timeout(10):
            await session.done.wait()


@pytest.mark.soak
@pytest.mark.parametrize("landed", [False, True], ids=["lost", "landed"])
async def test_a_paused_call_at_every_write(stage, landed):
    async def run(step):
        config, clock = stage.copy(), ManualClock()
        process = await start(config, clock, Faults())
        process.faults.arm(step, landed=landed)
        answered = {"told": []}
        with crash_is_the_end(process.faults):
            await record(process.vault, answered)
        await process.abandon()
        await laws(config, clock, answered)
        stage.discard(config)
        return process.faults.trace

    writes = await run(None)
    for step in steps(len(writes), of=f"paused {landed}"):
        await run(step)
    assert {"catalog.put_notes", "catalog.revise_facts", "catalog.finish_recording", "objects.put"} <= set(writes)
    assert any(name.startswith("journal.") for name in writes)


async def laws(config, clock, answered):
    async with open_vault(config, clock=clock, background=False) as vault:
        if (session := vault.ingest.live_call(ACME, "live")) is not None and session.ended is None:
            assert not answered.get("ended")
            assert not answered.get("paused") or answered.get("asked to resume") or session.keeping.paused
            noted = {type(note) for note in session.keeping.notes}
            assert not answered.get("document") or Document in noted
            assert session.received <= len(STREAM)
            await record(vault, answered)
        elif session is not None:
            async with storing(vault), asyncio.timeout(10):
                await session.done.wait()
        [row] = await vault.catalog.recordings(RecordingQuery(tenant=ACME))
        assert await play(vault, row.id) == KEPT
        notes = (await vault.playback.finished(row)).notes
        assert dropped_bytes(notes, len(KEPT)) == len(CARD)
        assert [note.offset for note in notes if isinstance(note, Pause)] == [PAUSED]
        assert [note.content for note in notes if isinstance(note, Document)] == [DOCUMENT]
        assert any(isinstance(note, Missing) for note in notes)
        facts = facts_of(vault.keyring, row)
        assert (facts.caller, facts.called, facts.extra["call_key"]) == ("+442079460123", "+442079460999", "live")
        assert await vault.search.call(ACME, "live") == row
        assert await vault.catalog.notes(row.id) == {}
        await audit_verifies(vault)


@pytest.mark.parametrize("landed", [False, True], ids=["lost", "landed"])
async def test_an_overlong_pause_ends_once_whatever_write_of_its_end_a_process_dies_at(stage, landed):
    limit = timedelta(minutes=15)
    seen = set()
    for step in range(1, 20):
        config, clock = stage.copy(), ManualClock()
        process = await start(config, clock, Faults())
        vault = process.vault
        session = vault.ingest.live_call(ACME, "live")
        await vault.ingest.attach(session, offset=None)
        await vault.ingest.write(session, FIRST)
        await vault.notes.pause(session, actor=PBX)
        await vault.ingest.write(session, CARD)
        assert await vault.notes.acknowledge(session) == RESUMED
        assert not await vault.notes.end_overlong(session, limit)
        clock.advance(minutes=15)
        clock.slept += limit.total_seconds()
        await vault.keyring.refresh()
        process.faults.arm(step, landed=landed)
        with crash_is_the_end(process.faults):
            assert await vault.notes.end_overlong(session, limit)
            await vault.ingest.write(session, LAST)
            await session.entry.barrier()
        seen.add(process.faults.trace[-1])
        await process.abandon()
        async with open_vault(config, clock=clock, background=False) as vault:
            session = vault.ingest.live_call(ACME, "live")
            was_paused = session.keeping.paused
            assert await vault.notes.end_overlong(session, limit) is was_paused
            assert not session.keeping.paused
            told = await vault.ingest.attach(session, offset=None)
            await vault.ingest.write(session, STREAM[told:])
            async with storing(vault):
                await vault.ingest.finish(session)
                async with asyncio.timeout(10):
                    await session.done.wait()
            assert await play(vault, session.recording.id) == KEPT
            trail = [entry.event for entry in await audit_entries(vault.catalog, limit=1000)]
            [entry] = [each for each in trail if each.event == "recording.pause_ended"]
            assert (entry.actor, entry.detail["paused_by"]) == ("vault", f"{PBX.token_id} {PBX.name}")
            assert entry.detail["paused_at"] == "2026-03-01T09:00:00.000Z"
        stage.discard(config)
        if not process.faults.dead:
            break
    assert "catalog.put_notes" in seen


async def test_an_outage_of_the_catalog_ends_no_call_and_loses_no_note_of_it(stage):
    config, clock = stage.copy(), ManualClock()
    process: Process = await start(config, clock)
    vault = process.vault
    session = vault.ingest.live_call(ACME, "live")
    await vault.ingest.attach(session, offset=None)
    put = vault.catalog._inner.put_notes

    async def down(*_args, **_kwargs):
        raise Unavailable("the database does not answer")

    vault.catalog._inner.put_notes = down
    await vault.notes.gap(session, 40)
    await vault.ingest.write(session, FIRST)
    with pytest.raises(Unavailable, match="does not answer"):
        await vault.notes.pause(session)
    await vault.ingest.write(session, CARD)  # the pause holds although nobody could be told so
    assert await vault.notes.acknowledge(session) == PAUSED
    vault.catalog._inner.put_notes = put
    await vault.notes.pause(session)
    assert len(await vault.catalog.notes(session.recording.id)) == 2
    await vault.notes.resume(session)
    await vault.ingest.write(session, LAST)
    async with storing(vault):
        await vault.ingest.finish(session)
        async with asyncio.timeout(10):
            await session.done.wait()
    assert await play(vault, session.recording.id) == KEPT
    row = await vault.catalog.recording(session.recording.id)
    notes = (await vault.playback.finished(row)).notes
    assert [type(note) for note in notes] == [Missing, Pause]
    told = [entry.event.event for entry in await audit_entries(vault.catalog, limit=1000)]
    assert (told.count("recording.paused"), told.count("recording.resumed")) == (1, 1)
    await process.abandon()


async def test_a_note_that_waits_for_the_catalog_is_sealed_once_however_many_come_after_it(stage, monkeypatch):
    process: Process = await start(stage.copy(), ManualClock())
    vault = process.vault
    session = vault.ingest.live_call(ACME, "live")
    await vault.ingest.attach(session, offset=None)
    put, sealed = vault.catalog._inner.put_notes, []

    async def down(*_args, **_kwargs):
        raise Unavailable("the database does not answer")

    def counting(*args, **kwargs):
        sealed.append(args[2])
        return seal_note(*args, **kwargs)

    monkeypatch.setattr("vault.services.ingest.call_notes.seal_note", counting)
    vault.catalog._inner.put_notes = down
    for missing in range(100, 140):
        await vault.notes.gap(session, missing)
    vault.catalog._inner.put_notes = put
    await vault.notes.gap(session, 140)
    assert len(await vault.catalog.notes(session.recording.id)) == 41
    assert sealed == [*range(41)]
    await process.abandon()


class Gate:
    """Holds the catalog's notes back until it is opened."""

    def __init__(self, vault):
        self._put, self.open = vault.catalog._inner.put_notes, asyncio.Event()
        self.waiting = asyncio.Event()
        vault.catalog._inner.put_notes = self._wait

    async def _wait(self, *args, **kwargs):
        self.waiting.set()
        await self.open.wait()
        await self._put(*args, **kwargs)


async def test_what_arrives_while_a_resume_is_made_durable_waits_and_a_pause_asked_for_then_wins(stage):
    process = await start(stage.copy(), ManualClock())
    vault = process.vault
    session = vault.ingest.live_call(ACME, "live")
    await vault.ingest.attach(session, offset=None)
    await vault.notes.pause(session)
    assert vault.ingest.take(session, CARD)
    gate = Gate(vault)
    resuming = asyncio.create_task(vault.notes.resume(session))
    await gate.waiting.wait()
    assert not vault.ingest.take(session, FIRST)
    writing = asyncio.create_task(vault.ingest.write(session, FIRST))
    await asyncio.sleep(0)
    pausing = asyncio.create_task(vault.notes.pause(session))
    await asyncio.sleep(0)
    assert session.appended == len(BEFORE)
    gate.open.set()
    await asyncio.gather(resuming, writing, pausing)
    assert session.appended == len(BEFORE + FIRST)
    await vault.ingest.write(session, CARD)
    assert session.appended == len(BEFORE + FIRST)
    assert await vault.notes.acknowledge(session) == len(BEFORE + CARD + FIRST + CARD)
    await process.abandon()


async def test_a_note_under_way_when_the_call_ends_is_in_the_manifest(stage):
    process = await start(stage.copy(), ManualClock())
    vault = process.vault
    session = vault.ingest.live_call(ACME, "live")
    await vault.ingest.attach(session, offset=None)
    gate = Gate(vault)
    noting = asyncio.create_task(vault.notes.document(session, media_type="text/xml", content=DOCUMENT))
    await gate.waiting.wait()
    async with storing(vault):
        await vault.ingest.finish(session)
        with pytest.raises(Conflict):
            async with asyncio.timeout(5):
                await asyncio.gather(late := asyncio.create_task(vault.notes.gap(session, 40)), opened(gate))
        assert late.done()
        assert await noting == 0
        async with asyncio.timeout(10):
            await session.done.wait()
    row = await vault.catalog.recording(session.recording.id)
    assert [type(note) for note in (await vault.playback.finished(row)).notes] == [Document]
    await process.abandon()


async def opened(gate):
    gate.open.set()
