"""One suite for every Spool: on a file system, and in memory."""

import os

import pytest
from prometheus_client import CollectorRegistry

from tests.helpers.crashing import ManualClock
from tests.helpers.memory import MemorySpool
from vault.errors import NotFound, Truncated, Unavailable
from vault.services.ingest.slots import Shares
from vault.services.uploads.spooling import SPOOL
from vault.storage.spool import FileSpool
from vault.telemetry import Metrics

RECORDING, OTHER, TENANT = "rec_" + "0" * 32, "rec_" + "1" * 32, "northfield"
ROOM = 1 << 20


@pytest.fixture(params=["filesystem", "memory"])
def opened(request, tmp_path):
    """Return what opens a spool: each time as a new process would, with what the last one left."""
    disk = {}

    def spool():
        room = Shares(ROOM, SPOOL, clock=ManualClock(), metrics=Metrics(CollectorRegistry()))
        if request.param == "memory":
            return MemorySpool(room=room, disk=disk)
        return FileSpool(tmp_path / "parts", room=room, disk_reserve_bytes=0, entropy=os.urandom)

    return spool


@pytest.fixture
async def spool(opened):
    made = opened()
    await made.prepare(RECORDING)
    return made


async def kept(spool, number, data, version=0):
    file = await spool.begin(RECORDING, number, tenant=TENANT)
    await file.append(data)
    await file.keep(version)
    await file.close()


async def content(spool, number, version=0):
    file = await spool.open(RECORDING, number, version)
    found = await file.read(0, file.size)
    await file.close()
    return found


async def test_nothing_is_kept_in_a_spool_that_is_new(opened):
    assert await opened().kept() == {}


async def test_only_what_was_kept_is_there_for_the_next_process(opened, spool):
    await kept(spool, 1, b"first")
    await kept(spool, 1, b"again and longer", version=1)
    await kept(spool, 1, b"first again", version=2)
    abandoned = await spool.begin(RECORDING, 2, tenant=TENANT)
    await abandoned.append(b"never kept")
    scratch = await spool.scratch(tenant=TENANT)
    await scratch.append(b"nameless")
    later = opened()
    assert await later.kept() == {RECORDING: {(1, 0): 5, (1, 1): 16, (1, 2): 11}}
    assert not later.room.uses
    assert [await content(later, 1, version) for version in range(3)] == [b"first", b"again and longer", b"first again"]
    with pytest.raises(NotFound):
        await later.open(RECORDING, 2)


async def test_a_place_without_parts_is_there_too_and_preparing_it_again_loses_none(opened, spool):
    assert await opened().kept() == {RECORDING: {}}
    await kept(spool, 1, b"first")
    await spool.prepare(RECORDING)
    assert await opened().kept() == {RECORDING: {(1, 0): 5}}


async def test_a_version_that_is_kept_again_takes_the_place_of_itself_alone_and_is_counted_once(spool):
    await kept(spool, 1, b"first")
    await kept(spool, 1, b"second", version=1)
    await kept(spool, 1, b"second try", version=1)
    assert await spool.kept() == {RECORDING: {(1, 0): 5, (1, 1): 10}}
    assert (await content(spool, 1), await content(spool, 1, 1)) == (b"first", b"second try")
    assert spool.room.uses == {TENANT: 15}


async def test_a_file_is_read_while_it_is_written_and_never_beyond_its_end(spool):
    for file in (await spool.begin(RECORDING, 7, tenant=TENANT), await spool.scratch(tenant=TENANT)):
        assert file.size == 0
        await file.append(b"one ")
        await file.append(b"two")
        assert (file.size, await file.read(4, 7), await file.read(0, 0)) == (7, b"two", b"")
        with pytest.raises(Truncated):
            await file.read(4, 8)
        await file.close()


async def test_what_is_not_kept_is_counted_until_it_is_closed_and_closing_it_again_is_fine(spool):
    file = await spool.begin(RECORDING, 1, tenant=TENANT)
    scratch = await spool.scratch(tenant=TENANT)
    await file.append(bytes(1_000))
    await scratch.append(bytes(500))
    assert spool.room.uses == {TENANT: 1_500}
    for each in (file, scratch, file, scratch):
        await each.close()
    assert not spool.room.uses
    assert await spool.kept() == {RECORDING: {}}


async def test_more_than_there_is_room_for_is_refused_and_neither_written_nor_counted(spool):
    file = await spool.begin(RECORDING, 1, tenant=TENANT)
    await file.append(b"fits")
    with pytest.raises(Unavailable):
        await file.append(bytes(ROOM))
    assert (file.size, spool.room.uses) == (4, {TENANT: 4})
    await file.keep()
    await file.close()
    assert await content(spool, 1) == b"fits"


async def test_a_dropped_recording_gives_back_its_bytes_and_takes_no_other(opened, spool):
    await kept(spool, 1, b"first")
    await spool.prepare(OTHER)
    other = await spool.begin(OTHER, 1, tenant=TENANT)
    await other.append(b"of the other")
    await other.keep()
    await other.close()
    for _ in range(2):
        await spool.drop(RECORDING, tenant=TENANT)
        assert spool.room.uses == {TENANT: 12}
    assert await opened().kept() == {OTHER: {(1, 0): 12}}
    for part in ((RECORDING, 1), (OTHER, 2), (OTHER, 1, 1)):
        with pytest.raises(NotFound):
            await spool.open(*part)
