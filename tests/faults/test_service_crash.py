"""Whatever write a process dies at, its successor keeps every promise that was answered and invents none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

import pytest

from tests.helpers import approvals
from tests.helpers.crashing import (
    ACME,
    Crash,
    Faults,
    ManualClock,
    Process,
    begin,
    call,
    crash_is_the_end,
    hold_request,
    play,
    record,
    start,
    storing,
)
from tests.helpers.service_steps import (
    ANN,
    BOB,
    DAN,
    MODES,
    SOUND,
    Stage,
    assert_playable,
    assert_shredded,
    audit_verifies,
    enumerate_crashes,
    stage,
    sweep,
)
from tests.helpers.soak import steps
from tests.helpers.tenants import metadata_kept
from vault.certificates.document import Case, reference_digest
from vault.ids import id_bytes
from vault.model import HoldState, RecordingState
from vault.ports.erasures import ErasureBasis, ErasureOutcome, ErasureState
from vault.ports.policies import PolicyState
from vault.ports.recordings import RecordingQuery
from vault.retention.periods import Period
from vault.services.deletion.erasures import ErasureRequest
from vault.services.recordings.search import facts_of
from vault.services.vault import Vault
from vault.wiring import open_vault

__all__ = ["stage"]

pytestmark = pytest.mark.soak


async def assert_leaves_are_unique(vault: Vault) -> None:
    rows = await vault.catalog.recordings(RecordingQuery(limit=1000))
    places = [place for row in rows for place in (row.audio, row.metadata)]
    assert len(set(places)) == len(places) > 2


async def end_the_call(vault: Vault, stage: Stage) -> None:
    """The recorder comes back, is told where to continue, and the call ends."""
    session = vault.ingest.live(stage.recordings["live"])
    assert session is not None
    async with storing(vault):
        offset = await vault.ingest.attach(session, offset=None)
        assert 9_000 <= offset <= 30_000, "acknowledged bytes were lost"
        await vault.ingest.write(session, stage.audio["live"][offset:])
        await vault.ingest.finish(session)
        await session.done.wait()
        await record(vault, call("after-the-crash", days=30), b"x" * 2_000)
    await assert_leaves_are_unique(vault)


# -- taking in ----------------------------------------------------------------------------------------------------


@MODES
async def test_a_crash_at_any_write_of_a_call_keeps_what_was_acknowledged(stage, mode):
    audio = SOUND(40_000)

    async def flow(process: Process, answers: dict[str, object]) -> None:
        vault = process.vault
        async with storing(vault):
            session = await begin(vault, call("new", days=20), audio[:20_000])
            answers["acked"] = 20_000
            await vault.ingest.write(session, audio[20_000:])
            assert session.entry is not None
            await session.entry.barrier()
            answers["acked"] = len(audio)
            await vault.ingest.finish(session)
            answers["finished"] = True
            await session.done.wait()

    async def laws(vault: Vault, clock: ManualClock, answers: Mapping[str, object]) -> None:
        acked = answers.get("acked", 0)
        row = await vault.search.call(ACME, "new")
        if row is None:
            assert not acked
        else:
            session = vault.ingest.live(row.id)
            if session is not None:
                async with storing(vault):
                    if session.ended is None:
                        assert "finished" not in answers
                        offset = await vault.ingest.attach(session, offset=None)
                        assert offset >= acked
                        await vault.ingest.write(session, audio[offset:])
                        await vault.ingest.finish(session)
                    await session.done.wait()
            row = await vault.catalog.recording(row.id)
            assert row.state is RecordingState.SEALED
            assert await play(vault, row.id) == audio
        await end_the_call(vault, stage)

    writes = await enumerate_crashes(stage, mode, days=0, flow=flow, laws=laws)
    assert {"catalog.reserve_leaves", "catalog.create_recording", "catalog.finish_recording"} <= set(writes)
    assert {"journal.create", "journal.write", "journal.sync", "catalog.add_segments"} <= set(writes)
    assert writes.count("objects.put") == 4
    assert "keyring.replace" in writes


# -- holds --------------------------------------------------------------------------------------------------------


_HOLD_WRITES = ("catalog.add_hold", "catalog.revise_terms", *["catalog.labelled"] * 4)
"""Labels are noted for a page and for the end, of the hold that is placed and of the one that was there."""


@MODES
async def test_a_crash_at_any_write_of_placing_a_hold_leaves_all_of_it_or_nothing(stage, mode):
    names = ("due-1", "due-2")
    wanted = tuple(stage.recordings[name] for name in names)

    async def flow(process: Process, answers: dict[str, object]) -> None:
        answers["hold"] = await process.vault.holds.place(hold_request(*wanted, clock=process.clock), actor=ANN)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(process.vault.labels.run())
            await process.vault.labels.settled(within=10)
            working.cancel()

    async def laws(vault: Vault, clock: ManualClock, answers: Mapping[str, object]) -> None:
        found = [hold for hold in await vault.catalog.holds() if hold.id != stage.hold.id]
        pins = [pin for pin in vault.keyring.pins() if pin.tag != id_bytes(stage.hold.id)]
        answered = answers.get("hold")
        if answered is not None:
            assert found == [answered]
        if found:
            (hold,) = found
            assert hold.state is HoldState.ACTIVE
            assert hold.recordings == wanted
            assert {pin.tag for pin in pins} == {id_bytes(hold.id)}
            assert sum(pin.last - pin.first + 1 for pin in pins) == 4
            async with asyncio.TaskGroup() as group:
                working = group.create_task(vault.labels.run())
                await vault.labels.settled(within=10)
                working.cancel()
            refs = [ref for refs in (await vault.catalog.segments_of(wanted)).values() for ref in refs]
            assert all([(await vault.store.stat(ref.name)).meta.held for ref in refs]), "a crash lost a label"
        else:
            assert not pins
        await sweep(vault, clock)
        await (assert_playable if found else assert_shredded)(vault, stage, *names)
        await assert_playable(vault, stage, "held", "later")
        await assert_shredded(vault, stage, "other")

    writes = await enumerate_crashes(stage, mode, days=12, flow=flow, laws=laws)
    assert [each for each in writes if each in _HOLD_WRITES] == [*_HOLD_WRITES]
    assert {"keyring.replace", "objects.set_held"} <= set(writes)


@MODES
async def test_a_crash_at_any_write_of_a_release_neither_forgets_nor_invents_a_step(stage, mode):
    order = [HoldState.ACTIVE, HoldState.RELEASE_REQUESTED, HoldState.RELEASED]

    async def flow(process: Process, answers: dict[str, object]) -> None:
        holds = process.vault.holds
        answers["state"] = HoldState.ACTIVE
        answers["state"] = (await holds.request_release(stage.hold.id, reason="settled", actor=ANN)).state
        answers["state"] = (await approvals.approve_release(process.vault, stage.hold.id, actor=BOB)).state

    async def laws(vault: Vault, clock: ManualClock, answers: Mapping[str, object]) -> None:
        found = await vault.catalog.hold(stage.hold.id)
        ahead = order.index(found.state) - order.index(answers["state"])
        assert ahead in (0, 1), "an answered step was forgotten, or one taken that nobody asked for"
        if found.state is not HoldState.RELEASED:
            await assert_playable(vault, stage, "held")
        if found.state is HoldState.ACTIVE:
            found = await vault.holds.request_release(found.id, reason="settled", actor=ANN)
        if found.state is HoldState.RELEASE_REQUESTED:
            await approvals.approve_release(vault, found.id, actor=BOB)
        await sweep(vault, clock)
        await assert_playable(vault, stage, "held")
        clock.advance(days=2)
        await sweep(vault, clock)
        await assert_shredded(vault, stage, "held", "due-1")
        await assert_playable(vault, stage, "later")
        assert not vault.keyring.pins(ACME) or all(pin.cohort.part == "metadata" for pin in vault.keyring.pins(ACME))

    writes = await enumerate_crashes(stage, mode, days=12, flow=flow, laws=laws)
    assert writes == ["catalog.revise_terms", "catalog.revise_terms"]


# -- sweeping -----------------------------------------------------------------------------------------------------


@MODES
async def test_a_crash_at_any_write_of_a_sweep_ends_with_everything_due_shredded_and_nothing_else(stage, mode):
    async def flow(process: Process, answers: dict[str, object]) -> None:
        await sweep(process.vault, process.clock)

    async def laws(vault: Vault, clock: ManualClock, answers: Mapping[str, object]) -> None:
        await assert_swept(vault, stage, clock)
        # The call under way when its cohort was swept ends as if nothing had happened, and the next sweep takes it.
        await end_the_call(vault, stage)
        await assert_playable(vault, stage, "live")
        await sweep(vault, clock)
        await assert_shredded(vault, stage, "live")
        await assert_playable(vault, stage, "held")

    writes = await enumerate_crashes(stage, mode, days=12, flow=flow, laws=laws)
    assert {"catalog.intend_shred", "catalog.record_receipt", "catalog.finish_shred"} <= set(writes)
    assert {"provider.replace", "provider.overwrite", "provider.unlink", "keyring.swap_head"} <= set(writes)
    assert writes.count("catalog.certify") == 2
    # Deleted at once, and looked for again when every lease has run out.
    assert writes.count("objects.delete_below") == 2


async def assert_swept(vault: Vault, stage: Stage, clock: ManualClock) -> None:
    await sweep(vault, clock)
    await assert_shredded(vault, stage, "due-1", "due-2", "other")
    await assert_playable(vault, stage, "held", "later")


async def test_a_crash_at_any_write_of_the_recovery_from_a_crash_is_recovered_from(stage):
    # Between the two heads: a replica to mend, a root version to destroy and the whole shred to repeat.
    first = "keyring.swap_head"
    number = await writes_until(stage, first)

    async def run(step: int | None) -> list[str]:
        config, clock = stage.copy(), ManualClock()
        clock.advance(days=12)
        process = await start(config, clock)
        process.faults.arm(number, landed=True)
        with crash_is_the_end(process.faults):
            await process.vault.sweeper.sweep(trigger="expiry", actor=None)
        assert process.faults.trace[-1] == first
        await process.abandon()
        faults = Faults()
        faults.arm(step, landed=step is None or step % 2 == 0)
        with suppress(Crash):
            await (await start(config, clock, faults)).abandon()
        async with open_vault(config, clock=clock, background=False) as vault:
            await assert_swept(vault, stage, clock)
            await audit_verifies(vault)
        stage.discard(config)
        return faults.trace

    writes = await run(None)
    assert len(writes) > 5
    for step in steps(len(writes), of="recovery"):
        await run(step)


async def writes_until(stage: Stage, wanted: str) -> int:
    """Return the number of the first write of a sweep that has this name."""
    config, clock = stage.copy(), ManualClock()
    clock.advance(days=12)
    process = await start(config, clock)
    process.faults.arm(None, landed=False)
    await process.vault.sweeper.sweep(trigger="expiry", actor=None)
    await process.abandon()
    stage.discard(config)
    return process.faults.trace.index(wanted) + 1


@MODES
async def test_a_crash_at_any_write_of_a_sweep_takes_metadata_by_its_own_clock_and_keeps_the_rest(stage, mode):
    async def flow(process: Process, answers: dict[str, object]) -> None:
        vault = process.vault
        await metadata_kept(vault, ACME, days=1)
        await vault.sweeper.sweep(trigger="expiry", actor=None)

    async def laws(vault: Vault, clock: ManualClock, answers: Mapping[str, object]) -> None:
        await metadata_kept(vault, ACME, days=1)
        await sweep(vault, clock)
        await assert_shredded(vault, stage, "due-1", "due-2", "later", "other")
        await assert_playable(vault, stage, "held")
        readable = {
            name
            for name, identifier in stage.recordings.items()
            if facts_of(vault.keyring, await vault.catalog.recording(identifier)) is not None
        }
        # Beta keeps its metadata; a hold and a call under way keep theirs.
        assert readable == {"other", "held", "live"}
        await end_the_call(vault, stage)
        await sweep(vault, clock)
        await assert_shredded(vault, stage, "live")
        assert not vault.keyring.derivable((await vault.catalog.recording(stage.recordings["live"])).metadata)

    writes = await enumerate_crashes(stage, mode, days=45, flow=flow, laws=laws)
    assert {"catalog.revise_tenant", "catalog.intend_shred", "catalog.certify", "catalog.finish_shred"} <= set(writes)


@MODES
async def test_a_crash_at_any_write_of_a_change_that_keeps_audio_longer_loses_no_key(stage, mode):
    async def flow(process: Process, answers: dict[str, object]) -> None:
        policies = process.vault.policies
        asked = await policies.request_audio(ACME, retention=Period(timedelta(days=200)), actor=DAN)
        await policies.decide(asked.id, approve=True, actor=ANN)
        answers["approved"] = True
        # The notice ends before the day of the call's cohort, and the sweep that applies the change comes on that day.
        process.clock.advance(days=40)
        await sweep(process.vault, process.clock)

    async def laws(vault: Vault, clock: ManualClock, answers: Mapping[str, object]) -> None:
        row = await vault.catalog.recording(stage.recordings["due-1"])
        await sweep(vault, clock)
        if answers.get("approved"):
            assert vault.keyring.derivable(row.audio), "two people had decided to keep it"
            await assert_playable(vault, stage, "due-1")

    writes = await enumerate_crashes(stage, mode, days=0, flow=flow, laws=laws)
    assert {"keyring.replace", "catalog.apply_policy_request"} <= set(writes)


@MODES
async def test_a_crash_at_any_write_of_a_change_of_existing_metadata_neither_forgets_nor_invents_a_step(stage, mode):
    order = [None, PolicyState.REQUESTED, PolicyState.APPROVED, PolicyState.APPLIED]

    async def flow(process: Process, answers: dict[str, object]) -> None:
        policies = process.vault.policies
        asked = await policies.request(ACME, retention=Period(timedelta(days=1)), actor=DAN)
        answers["state"] = asked.state
        answers["state"] = (await policies.decide(asked.id, approve=True, actor=ANN)).state
        process.clock.advance(days=15)
        await policies.apply(process.clock.now())  # as a sweep does before its own writes
        answers["state"] = PolicyState.APPLIED

    async def laws(vault: Vault, clock: ManualClock, answers: Mapping[str, object]) -> None:
        found = next(iter(await vault.policies.all(tenant=ACME)), None)
        state = None if found is None else found.state
        assert order.index(state) - order.index(answers.get("state")) in (0, 1)
        tenant = await vault.catalog.tenant(ACME)
        assert (tenant.metadata_changed is not None) == (state is PolicyState.APPLIED), "both or neither"
        due = await vault.catalog.recording(stage.recordings["due-1"])
        assert vault.keyring.derivable(due.metadata)
        if found is None:
            found = await vault.policies.request(ACME, retention=Period(timedelta(days=1)), actor=DAN)
        if found.state is PolicyState.REQUESTED:
            found = await vault.policies.decide(found.id, approve=True, actor=ANN)
        clock.advance(days=15)
        await sweep(vault, clock)
        assert not vault.keyring.derivable(due.metadata)
        await assert_playable(vault, stage, "held")
        [applied] = await vault.policies.all(tenant=ACME)
        assert applied.state is PolicyState.APPLIED

    writes = await enumerate_crashes(stage, mode, days=45, flow=flow, laws=laws)
    assert {"catalog.add_policy_request", "catalog.revise_policy_request", "catalog.apply_policy_request"} <= set(
        writes
    )


# -- erasing ------------------------------------------------------------------------------------------------------


def erasure_of(stage: Stage, *names: str, queue: bool = False) -> ErasureRequest:
    return ErasureRequest(
        tenant=ACME,
        basis=ErasureBasis.ART17,
        case_reference="DSR-17",
        recordings=tuple(stage.recordings[name] for name in names),
        queue=queue,
    )


@MODES
async def test_a_crash_at_any_write_of_an_erasure_erases_what_was_approved_and_nothing_else(stage, mode):
    names = ("later", "due-2")
    order = [ErasureState.REQUESTED, ErasureState.APPROVED, ErasureState.DONE]

    async def flow(process: Process, answers: dict[str, object]) -> None:
        erasures = process.vault.erasures
        asked = await erasures.request(erasure_of(stage, *names), actor=ANN)
        answers["state"] = asked.erasure.state
        answers["state"] = (await approvals.approve_erasure(process.vault, asked.erasure.id, actor=BOB)).erasure.state

    async def laws(vault: Vault, clock: ManualClock, answers: Mapping[str, object]) -> None:
        await assert_playable(vault, stage, "due-1", "held", "other")
        found = await vault.catalog.erasures()
        if not found:
            assert "state" not in answers
            await assert_playable(vault, stage, *names)
            asked = await vault.erasures.request(erasure_of(stage, *names), actor=ANN)
            found = [asked.erasure]
        (erasure,) = found
        # A start carries out what two people have agreed on: nothing is left half approved.
        assert erasure.state in (ErasureState.REQUESTED, ErasureState.DONE)
        assert order.index(erasure.state) >= order.index(answers.get("state", ErasureState.REQUESTED))
        if erasure.state is ErasureState.REQUESTED:
            await assert_playable(vault, stage, *names)
            erasure = (await approvals.approve_erasure(vault, erasure.id, actor=BOB)).erasure
        assert erasure.state is ErasureState.DONE
        assert set(erasure.recordings.values()) == {ErasureOutcome.ERASED}
        # Deleting objects is repeated by sweeps; the day has not come for anything else.
        await sweep(vault, clock)
        await assert_shredded(vault, stage, *names)
        await assert_playable(vault, stage, "due-1", "held", "other")
        for name in names:
            row = await vault.catalog.recording(stage.recordings[name])
            assert not vault.keyring.derivable(row.metadata)
            assert (row.sealed_facts, row.caller_token) == (b"", None)
            (final, _) = sorted(await vault.catalog.certificates(recording=row.id), key=lambda each: each.status)
            (certificate,) = await vault.certificates.documents([final])
            assert certificate.parts == ("audio", "metadata")
            case = Case(id=erasure.id, reference_sha256=reference_digest(erasure.id, "DSR-17"))
            assert (certificate.trigger.kind, certificate.trigger.case) == ("art17", case)
            assert [each.token for each in certificate.authorisation.deciders] == [ANN.token_id, BOB.token_id]
        await end_the_call(vault, stage)

    writes = await enumerate_crashes(stage, mode, days=0, flow=flow, laws=laws)
    assert (writes.count("catalog.add_erasure"), writes.count("catalog.revise_erasure")) == (1, 2)
    assert {"catalog.intend_shred", "catalog.record_receipt", "catalog.certify", "catalog.finish_shred"} <= set(writes)
    assert {"provider.overwrite", "provider.unlink", "keyring.swap_head", "objects.delete_below"} <= set(writes)


@MODES
async def test_a_crash_at_any_write_of_a_sweep_that_fires_a_queued_erasure_keeps_its_promise(stage, mode):
    async def flow(process: Process, answers: dict[str, object]) -> None:
        vault = process.vault
        asked = await vault.erasures.request(erasure_of(stage, "held", queue=True), actor=ANN)
        waiting = await approvals.approve_erasure(vault, asked.erasure.id, actor=BOB)
        assert waiting.erasure.state is ErasureState.APPROVED
        answers["approved"] = True
        await vault.holds.request_release(stage.hold.id, reason="settled", actor=ANN)
        await approvals.approve_release(vault, stage.hold.id, actor=BOB)
        process.clock.advance(days=2)
        answers["released"] = True
        await vault.sweeper.sweep(trigger="expiry", actor=None)

    async def laws(vault: Vault, clock: ManualClock, answers: Mapping[str, object]) -> None:
        if "approved" not in answers:
            return
        if "released" not in answers:
            await assert_playable(vault, stage, "held")
            return
        await sweep(vault, clock)
        await assert_shredded(vault, stage, "held")
        await assert_playable(vault, stage, "later", "due-1", "other")
        (erasure,) = await vault.catalog.erasures()
        assert erasure.state is ErasureState.DONE
        assert not vault.keyring.pins()

    writes = await enumerate_crashes(stage, mode, days=0, flow=flow, laws=laws)
    assert {"catalog.intend_shred", "objects.delete_below", "provider.unlink"} <= set(writes)
