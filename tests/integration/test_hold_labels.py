"""Stored objects show whether a hold keeps their recording; what protects it is the pin in the keyring."""

import asyncio
import re

import sqlalchemy as sa

from tests.helpers import approvals
from tests.helpers.app import PCMU, SETTINGS, app, running, sound
from tests.helpers.crashing import memory_directory
from vault.config import parse_config
from vault.errors import Unavailable
from vault.model import Role
from vault.ports.objects import Deletion
from vault.services.holds import holds
from vault.wiring import open as wiring
from vault.wiring import open_vault
from vault.wiring.doctor import label_findings

__all__ = ["app"]


async def labels(app, recording):
    return [(await app.vault.store.stat(ref.name)).meta.held for ref in await app.vault.catalog.segments(recording)]


async def test_a_hold_placed_during_the_call_is_on_every_object_once_it_ends(app):
    audio, placed = sound(200_000), asyncio.Event()

    async def speaking():
        yield audio[:100_000]
        await placed.wait()
        yield audio[100_000:]

    upload = asyncio.create_task(app.upload("live", speaking()))
    while (session := app.vault.ingest.live_call("northfield", "live")) is None or session.durable < 100_000:
        await asyncio.sleep(0.01)
    assert (await app.hold(session.recording.id)).status == 201
    placed.set()
    recording = await upload
    assert set(await labels(app, recording)) == {True}


async def test_a_finished_recordings_objects_are_marked_when_the_hold_is_placed(app):
    headers = {"Content-Type": PCMU}
    recording = await app.upload("done", sound(100_000), headers=headers)
    assert set(await labels(app, recording)) == {False}
    assert (await app.hold(recording)).status == 201
    await app.vault.labels.settled(within=10)
    assert set(await labels(app, recording)) == {True}


async def test_a_hold_is_answered_once_it_protects_and_its_objects_say_so_when_their_store_can(app, monkeypatch):
    recording = await app.upload("away", sound(100_000))
    store, back = app.vault.store, asyncio.Event()
    set_held = store.set_held

    async def away(name, *, held):
        if not back.is_set():
            raise Unavailable("the store is away")
        await set_held(name, held=held)

    monkeypatch.setattr(holds, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(store, "set_held", away)
    answer = await app.hold(recording)
    assert (answer.status, answer.json["state"]) == (201, "active")
    assert set(await labels(app, recording)) == {False}
    back.set()
    await app.vault.labels.settled(within=10)
    assert set(await labels(app, recording)) == {True}


async def test_labels_that_a_process_left_unset_are_set_by_the_next_one(monkeypatch):
    async def away(name, *, held):
        raise Unavailable("the store is away")

    monkeypatch.setattr(wiring, "_LABEL_SECONDS", 0.01)
    with memory_directory() as base:
        config = parse_config(SETTINGS, base=base)
        async with running(base) as app:
            recording = await app.upload("left", sound(100_000))
            monkeypatch.setattr(app.vault.store, "set_held", away)  # until it ends
            assert (await app.hold(recording)).status == 201
            names = [ref.name for ref in await app.vault.catalog.segments(recording)]
            assert set(await labels(app, recording)) == {False}
        async with open_vault(config, clock=app.clock) as vault:
            await vault.labels.settled(within=10)
            assert {(await vault.store.stat(name)).meta.held for name in names} == {True}


async def test_an_object_that_takes_no_label_keeps_none_from_the_others_and_is_tried_again(app, monkeypatch):
    recordings = [await app.upload(f"one-bad-{number}", sound(2_000)) for number in range(4)]
    store, broken = app.vault.store, True
    bad = (await app.vault.catalog.segments(recordings[1]))[0].name
    set_held = store.set_held

    async def refuses(name, *, held):
        if name == bad and broken:
            raise Unavailable("the disk does not answer for this one")
        await set_held(name, held=held)

    async def failed():
        return re.findall(r"(?m)^callvault_hold_labels_(?:waiting|failed) (\S+)", await app.metrics())

    monkeypatch.setattr(holds, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(holds, "_AGAIN_LOOKS", 1)
    monkeypatch.setattr(store, "set_held", refuses)
    assert (await app.hold(*recordings)).status == 201
    await app.vault.labels.settled(within=10)
    shown = [await labels(app, each) for each in recordings]
    assert [all(each) for each in shown] == [True, False, True, True]
    assert await failed() == ["0.0", "1.0"]
    [told] = await label_findings(app.vault.catalog)
    assert (told.level, told.message[:46]) == ("warning", "the objects of 1 held recordings took no label")
    broken = False
    async with asyncio.timeout(10):
        while await failed() != ["0.0", "0.0"]:
            await asyncio.sleep(0.01)
    assert all(await labels(app, recordings[1]))
    assert await label_findings(app.vault.catalog) == []


async def test_objects_that_take_no_label_keep_none_from_later_holds_or_later_pages(app, monkeypatch):
    first, second, third, later = [await app.upload(f"bad-{number}", sound(2_000)) for number in range(4)]
    store = app.vault.store
    names = {each: {ref.name for ref in await app.vault.catalog.segments(each)} for each in (first, second)}
    bad = names[first] | names[second]
    set_held = store.set_held

    async def refuses(name, *, held):
        if name in bad:
            raise Unavailable("the disk does not answer for this one")
        await set_held(name, held=held)

    monkeypatch.setattr(holds, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(holds, "_AGAIN_LOOKS", 1)
    monkeypatch.setattr(store, "set_held", refuses)
    for some in ((first,), (first, second, third), (later,)):
        assert (await app.hold(*some, matter=f"of {len(some)} {some[0]}")).status == 201
    async with asyncio.timeout(5):
        while not all(await labels(app, later)):
            await asyncio.sleep(0.01)
    assert [all(await labels(app, each)) for each in (first, second, third)] == [False, False, True]
    monkeypatch.setattr(holds, "_PAGE", 1)  # of what is tried again, the first page stays bad
    bad -= names[second]
    async with asyncio.timeout(5):
        while not all(await labels(app, second)):
            await asyncio.sleep(0.01)
    assert not any(await labels(app, first))


async def test_a_release_takes_the_label_once_its_pins_are_gone_and_leaves_what_another_hold_keeps(app):
    one, both = [await app.upload(f"released-{number}", sound(2_000)) for number in range(2)]
    released = (await app.hold(one, both)).json["id"]
    assert (await app.hold(both, matter="another")).status == 201
    await app.vault.labels.settled(within=10)
    assert await labels(app, one) == await labels(app, both) == [True, True]
    assert (await app.ask("POST", f"/v1/holds/{released}/release", body={"reason": "settled"})).status == 202
    assert (await approvals.approve(app, f"/v1/holds/{released}", Role.DPO)).status == 200
    await app.vault.labels.settled(within=10)
    assert await labels(app, one) == [True, True], "the grace has not passed"
    app.clock.advance(days=2)
    await app.sweep()
    await app.vault.labels.settled(within=10)
    assert (await labels(app, one), await labels(app, both)) == ([False, False], [True, True])


async def test_a_hold_on_many_recordings_asks_the_catalog_as_often_as_one_on_few(app):
    recordings = [await app.upload(f"of-many-{number}", sound(2_000)) for number in range(9)]
    database, asked = app.vault.catalog._database, []
    for engine in (database.engine, database._readers):
        sa.event.listen(engine.sync_engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    counts = []
    for chosen in (recordings[:1], recordings[1:]):
        asked.clear()
        assert (await app.hold(*chosen)).status == 201
        await app.vault.labels.settled(within=10)
        counts.append(len(asked))
    assert counts[1] <= counts[0] + 2
    assert [await labels(app, each) for each in recordings] == [[True, True]] * 9


async def test_a_released_holds_label_does_not_keep_the_objects_of_a_shredded_recording(app, monkeypatch):
    recording = await app.upload("released", sound(100_000))
    hold = (await app.hold(recording)).json["id"]
    store = app.vault.store
    delete = store.delete

    async def locked(name):
        """Refuse as a bucket with Object Lock does while a legal hold is on the object."""
        if name in {info.name async for info in store.list(name)} and (await store.stat(name)).meta.held:
            return Deletion(name=name, versions_deleted=0, absent=False, detail="legal hold")
        return await delete(name)

    monkeypatch.setattr(store, "delete", locked)
    assert (await app.ask("POST", f"/v1/holds/{hold}/release", body={"reason": "settled"})).status == 202
    assert (await approvals.approve(app, f"/v1/holds/{hold}", Role.DPO)).status == 200
    app.clock.advance(days=12)
    assert (await app.sweep())["shredded"] == 1
    assert (await app.certified())["objects_deleted_for"] == 1
    certificates = (await app.ask("GET", f"/v1/certificates?recording={recording}")).json["certificates"]
    assert [each["status"] for each in certificates] == ["final", "provisional"]
