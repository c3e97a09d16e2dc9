"""The promises of vault.ports.journal, kept by the adapter on disk."""

import asyncio
import errno
import os
import shutil
import threading

import pytest
from prometheus_client import CollectorRegistry

from tests.helpers.journals import (
    FaultyDisk,
    audio,
    drop,
    journal_files,
    key_of,
    make,
    opening,
    reopened,
    replay,
    start,
)
from vault.errors import ConfigError, DiskFull, InUse, JournalFull, Shredded, Tampered, Unavailable
from vault.storage.journal.journal import refuse_in_use
from vault.telemetry import Metrics


@pytest.fixture
async def journal(tmp_path):
    journal = make(tmp_path / "journal")
    yield journal
    await journal.close()


def feed(entry, number, size, *, piece=1600):
    """Append `size` more bytes of the recording's audio."""
    begin = entry.appended
    for at in range(begin, begin + size, piece):
        entry.append(audio(number, at, min(at + piece, begin + size)))


async def test_appended_bytes_are_durable_after_a_barrier_and_read_back_in_any_range(journal):
    entry = start(journal, 1)
    feed(entry, 1, 10_000, piece=777)
    assert (entry.appended, entry.durable) == (10_000, 0)
    await entry.barrier()
    assert entry.durable == 10_000
    for begin, end in [(0, 10_000), (0, 0), (776, 778), (777, 1554), (9_999, 10_000), (1, 9_000)]:
        assert entry.read(begin, end) == audio(1, begin, end)


async def test_bytes_beyond_durable_or_before_release_are_not_read(journal):
    entry = start(journal, 1)
    feed(entry, 1, 3200)
    with pytest.raises(ValueError, match="not in the journal"):
        entry.read(0, 1)
    await entry.barrier()
    entry.release(1000)
    with pytest.raises(ValueError, match="not in the journal"):
        entry.read(999, 1001)
    assert entry.read(1000, 3200) == audio(1, 1000, 3200)


async def test_release_beyond_durable_is_refused_and_releases_nothing(journal):
    entry = start(journal, 1)
    feed(entry, 1, 1600)
    with pytest.raises(ValueError, match="not durable"):
        entry.release(1)
    await entry.barrier()
    assert entry.read(0, 1600) == audio(1, 0, 1600)


async def test_one_commit_acknowledges_every_call(tmp_path):
    disk = FaultyDisk()
    journal = make(tmp_path / "journal", disk=disk)
    entries = [start(journal, number) for number in range(1, 101)]
    for number, entry in enumerate(entries, 1):
        feed(entry, number, 160)
    await asyncio.gather(*(entry.barrier() for entry in entries))
    assert disk.syncs == 1
    assert {entry.durable for entry in entries} == {160}
    await journal.close()


async def test_pieces_that_arrive_during_a_commit_share_the_next_one(tmp_path):
    class SlowDisk(FaultyDisk):
        def sync(self, fd):
            gate.wait(5)
            super().sync(fd)

    gate = threading.Event()
    disk = SlowDisk()
    journal = make(tmp_path / "journal", disk=disk)
    entry = start(journal, 1)
    feed(entry, 1, 100)
    first = asyncio.create_task(entry.barrier())
    await asyncio.sleep(0.02)
    for _ in range(20):
        feed(entry, 1, 100)
    gate.set()
    await first
    assert entry.durable == 100
    await entry.barrier()
    assert (entry.durable, disk.syncs) == (2100, 2)
    await journal.close()


async def test_writable_waits_only_above_the_bound(tmp_path):
    journal = make(tmp_path / "journal", undurable_bytes=5000)
    entry = start(journal, 1)
    feed(entry, 1, 5000)
    await entry.writable()
    assert entry.durable == 0
    feed(entry, 1, 1)
    await entry.writable()
    assert entry.appended - entry.durable <= 5000
    await journal.close()


async def test_while_all_entries_together_are_over_their_bound_each_waits_for_its_own_and_none_for_ever(tmp_path):
    journal = make(tmp_path / "journal", undurable_bound=5000)
    entries = [start(journal, number) for number in range(1, 5)]
    for number, entry in enumerate(entries, 1):
        feed(entry, number, 4000)
    assert not any(entry.roomy for entry in entries)
    assert journal.undurable > 16_000
    async with asyncio.timeout(5):
        for entry in entries:
            await entry.writable()
            assert entry.durable == entry.appended
    assert all(entry.roomy for entry in entries)
    assert journal.undurable == 0
    await journal.close()


async def test_a_cancelled_barrier_disturbs_no_other_waiter(journal):
    entry = start(journal, 1)
    feed(entry, 1, 100)
    one, other = asyncio.create_task(entry.barrier()), asyncio.create_task(entry.barrier())
    await asyncio.sleep(0)
    one.cancel()
    await other
    assert entry.durable == 100


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_any_byte_buffer_is_a_piece_and_may_be_reused_at_once(journal, kind):
    entry = start(journal, 1)
    source = bytearray(audio(1, 0, 500))
    entry.append(kind(source))
    source[:] = bytes(500)
    await entry.barrier()
    assert entry.read(0, 500) == audio(1, 0, 500)


async def test_a_piece_may_have_a_mebibyte_and_no_more(journal):
    entry = start(journal, 1)
    entry.append(bytes(1 << 20))
    with pytest.raises(ValueError, match="bound"):
        entry.append(bytes((1 << 20) + 1))
    entry.append(b"")
    await entry.barrier()
    assert entry.durable == 1 << 20
    assert entry.read(0, 1 << 20) == bytes(1 << 20)


async def test_nothing_is_appended_after_the_end_or_the_close(journal):
    entry = start(journal, 1)
    feed(entry, 1, 10)
    await entry.end("sealed")
    await entry.end("sealed")
    with pytest.raises(ValueError, match="another reason"):
        await entry.end("truncated:x")
    with pytest.raises(ValueError, match="ended"):
        entry.append(b"x")
    assert entry.read(0, 10) == audio(1, 0, 10)
    entry.close()
    entry.close()
    with pytest.raises(ValueError, match="not in the journal"):
        entry.read(0, 10)


async def test_replay_returns_every_durable_byte_the_end_and_the_opening(tmp_path):
    journal = make(tmp_path / "journal", file_bytes=8192)
    for number, size in [(1, 30_000), (2, 1), (3, 5000)]:
        entry = start(journal, number)
        feed(entry, number, size)
        await (entry.end("truncated:recorder_gone") if number == 3 else entry.barrier())
    await start(journal, 4).end("sealed")
    await journal.close()
    async with reopened(tmp_path / "journal") as (_, found):
        assert {number: (one.first_offset, one.durable, one.ended) for number, one in found.items()} == {
            1: (0, 30_000, None),
            2: (0, 1, None),
            3: (0, 5000, "truncated:recorder_gone"),
            4: (0, 0, "sealed"),
        }
        assert found[1].opening == opening(1)
        for number, one in found.items():
            assert one.entry.read(0, one.durable) == audio(number, 0, one.durable)


async def test_a_replayed_recording_continues_in_a_new_file_and_old_files_stay_as_they_are(tmp_path):
    for turn in range(4):
        async with reopened(tmp_path / "journal") as (journal, found):
            before = {path: path.read_bytes() for path in journal_files(tmp_path / "journal")}
            entry = found[1].entry if turn else start(journal, 1)
            assert entry.durable == entry.appended == turn * 3000
            feed(entry, 1, 3000)
            await entry.barrier()
            assert entry.read(0, entry.durable) == audio(1, 0, entry.durable)
            assert {path: path.read_bytes() for path in before} == before
    assert len(journal_files(tmp_path / "journal")) == 4


async def test_released_bytes_free_their_files_and_replay_starts_after_them(tmp_path):
    journal = make(tmp_path / "journal", file_bytes=4096)
    entry = start(journal, 1)
    feed(entry, 1, 40_000)
    await entry.barrier()
    used = journal.usage()
    entry.release(30_000)
    assert journal.usage().files < used.files
    assert journal.usage().bytes_used < used.bytes_used / 2
    assert entry.read(30_000, 40_000) == audio(1, 30_000, 40_000)
    drop(journal)
    assert len(journal_files(tmp_path / "journal")) == journal.usage().files
    async with reopened(tmp_path / "journal") as (_, found):
        assert 0 < found[1].first_offset <= 30_000
        assert found[1].durable == 40_000
        assert found[1].entry.read(30_000, 40_000) == audio(1, 30_000, 40_000)


async def test_a_release_inside_a_record_keeps_its_rest(journal):
    entry = start(journal, 1)
    feed(entry, 1, 4800)
    await entry.barrier()
    for offset in (100, 1599, 1600, 1601, 4799):
        entry.release(offset)
        feed(entry, 1, 10)
        await entry.barrier()
        assert entry.read(offset, entry.durable) == audio(1, offset, entry.durable)


async def test_an_ended_recording_keeps_its_end_until_it_is_closed(tmp_path):
    journal = make(tmp_path / "journal", file_bytes=4096)
    entry = start(journal, 1)
    feed(entry, 1, 6000)
    await entry.barrier()
    entry.release(6000)
    await entry.end("sealed")
    drop(journal)
    async with reopened(tmp_path / "journal") as (_, found):
        assert (found[1].durable, found[1].ended) == (6000, "sealed")
        found[1].entry.close()
    assert journal_files(tmp_path / "journal") == []


async def test_closed_recordings_leave_nothing_behind(tmp_path):
    journal = make(tmp_path / "journal", file_bytes=4096)
    for number in range(1, 20):
        entry = start(journal, number)
        feed(entry, number, 3000)
        await entry.end("sealed")
        entry.close()
        assert journal.usage().files <= 2
    await journal.close()
    assert journal_files(tmp_path / "journal") == []


async def test_a_stuck_recording_pins_only_the_files_it_lies_in(tmp_path):
    """And the hole that other files leave is read as released, not as lost."""
    journal = make(tmp_path / "journal", file_bytes=8192)
    stuck, busy = start(journal, 1), start(journal, 2)
    feed(stuck, 1, 100)
    feed(busy, 2, 3200)
    await busy.barrier()
    for _ in range(20):
        released = busy.durable
        feed(busy, 2, 3200)
        await busy.barrier()
        busy.release(released)
    assert journal.usage().files <= 3
    drop(journal)
    async with reopened(tmp_path / "journal") as (_, found):
        assert found[1].entry.read(0, 100) == audio(1, 0, 100)
        assert found[2].first_offset <= released
        assert found[2].durable == busy.durable
        assert found[2].entry.read(released, busy.durable) == audio(2, released, busy.durable)


async def test_continuing_at_a_stored_offset_replaces_what_came_before(tmp_path):
    journal = make(tmp_path / "journal")
    entry = start(journal, 1)
    feed(entry, 1, 3000)
    await entry.barrier()
    entry.close()
    entry = start(journal, 1, offset=2500)
    feed(entry, 1, 4000)
    await entry.barrier()
    drop(journal)
    async with reopened(tmp_path / "journal") as (_, found):
        assert (found[1].first_offset, found[1].durable) == (2500, 6500)
        assert found[1].entry.read(2500, 6500) == audio(1, 2500, 6500)


async def test_skipped_and_shredded_recordings_are_dropped_and_stop_nothing(tmp_path):
    journal = make(tmp_path / "journal")
    for number in (1, 2, 3):
        feed(start(journal, number), number, 2000)
    await journal.close()

    def keys(place):
        if place.leaf == 1:
            raise Shredded("gone")
        return key_of(place)

    journal = make(tmp_path / "journal")
    found = await replay(journal, keys=keys, skip=lambda recording: recording == opening(2).recording)
    assert list(found) == [3]
    assert found[3].entry.read(0, 2000) == audio(3, 0, 2000)
    found[3].entry.close()
    await journal.close()
    assert journal_files(tmp_path / "journal") == []


async def test_unavailable_keys_stop_replay_which_then_succeeds_later(tmp_path):
    journal = make(tmp_path / "journal")
    feed(start(journal, 1), 1, 2000)
    await journal.close()

    def keys(_):
        raise Unavailable("the keyring does not answer")

    journal = make(tmp_path / "journal")
    with pytest.raises(Unavailable):
        await replay(journal, keys=keys)
    assert (await replay(journal))[1].entry.read(0, 2000) == audio(1, 0, 2000)
    await journal.close()


async def test_a_journal_closed_before_its_replay_keeps_every_byte(tmp_path):
    journal = make(tmp_path / "journal")
    feed(start(journal, 1), 1, 2000)
    await journal.close()
    await make(tmp_path / "journal").close()
    async with reopened(tmp_path / "journal") as (_, found):
        assert found[1].durable == 2000


async def test_replay_comes_once_and_before_the_first_recording(tmp_path):
    journal = make(tmp_path / "journal")
    start(journal, 1)
    with pytest.raises(ValueError, match="before the first open"):
        await replay(journal)
    await journal.close()


async def test_two_processes_cannot_use_one_directory(tmp_path, journal):
    with pytest.raises(InUse) as refused:
        make(tmp_path / "journal")
    assert f"process {os.getpid()} has {tmp_path / 'journal'} open" in refused.value.message
    assert f"end that process first (kill {os.getpid()})" in refused.value.hint
    with pytest.raises(InUse, match=f"process {os.getpid()} has"):
        refuse_in_use(tmp_path / "journal")
    (tmp_path / "journal" / "journal.lock").write_bytes(b"")  # a disk without room for the number
    with pytest.raises(InUse, match="a process has"):
        refuse_in_use(tmp_path / "journal")
    await journal.close()
    refuse_in_use(tmp_path / "journal")


async def test_a_missing_directory_is_the_operators_to_make(tmp_path):
    with pytest.raises(ConfigError, match=r"^journal\.path: .*absent: no such file or directory; .* belongs to "):
        make(tmp_path).__class__(tmp_path / "absent", clock=None)


async def test_new_recordings_are_refused_at_four_fifths_and_bytes_only_at_the_bound(tmp_path):
    journal = make(tmp_path / "journal", bytes_bound=100_000, file_bytes=10_000)
    entry = start(journal, 1)
    while journal.refusal() is None:
        feed(entry, 1, 1000)
        await entry.writable()
    await entry.barrier()
    assert 78_000 <= journal.usage().bytes_used <= 90_000
    with pytest.raises(JournalFull):
        start(journal, 2)
    other = start(journal, 2, offset=500)
    with pytest.raises(JournalFull):
        feed(entry, 1, 40_000, piece=1000)
    kept = entry.appended
    await entry.barrier()
    assert entry.durable == entry.appended == kept
    assert sum(path.stat().st_size for path in journal_files(tmp_path / "journal")) <= 100_000
    entry.release(kept - 1000)
    assert journal.refusal() is None
    feed(entry, 1, 5000)
    other.append(b"x")
    await other.barrier()
    assert entry.read(kept - 1000, kept + 5000) == audio(1, kept - 1000, kept + 5000)
    await journal.close()


async def test_no_recording_starts_below_the_disk_reserve_and_those_under_way_continue(tmp_path):
    disk = FaultyDisk()
    disk.free = 1 << 30
    journal = make(tmp_path / "journal", disk=disk, disk_reserve_bytes=1 << 30)
    entry = start(journal, 1)
    disk.free -= 1
    journal._disk_checked_at = float("-inf")  # as a second later
    assert journal.refusal() is not None
    with pytest.raises(DiskFull):
        start(journal, 2)
    feed(entry, 1, 100)
    await entry.barrier()
    assert entry.durable == 100
    await journal.close()


async def test_how_full_the_journal_is_counts_its_bound_and_what_its_disk_leaves_it(tmp_path):
    disk = FaultyDisk()
    journal = make(
        tmp_path / "journal", disk=disk, bytes_bound=1 << 20, file_bytes=64 << 10, disk_reserve_bytes=1 << 30
    )
    assert journal.filled() == 0.0
    feed(start(journal, 1), 1, 32_000)
    used = journal.usage().bytes_used
    assert journal.filled() == used / (1 << 20)
    for left, filled in ((64 << 10, used / (128 << 10)), (0, 1.0), (-1, 1.0)):
        disk.free = (1 << 30) + left
        journal._disk_checked_at = float("-inf")  # as a second later
        assert journal.filled() == filled
    disk.free_bytes = os.statvfs
    shutil.rmtree(tmp_path / "journal")
    journal._disk_checked_at = float("-inf")
    assert journal.filled() == 1.0
    await journal.close()


async def test_what_a_refusal_says_is_which_bound_was_met_and_by_how_much(tmp_path):
    disk = FaultyDisk()
    disk.free = 60 << 20
    journal = make(tmp_path / "journal", disk=disk, bytes_bound=1 << 30, file_bytes=256 << 20, disk_reserve_bytes=1)
    assert str(journal.refusal()) == (
        "the journal's disk has 60 MiB free, and its next file takes 256 MiB at once (journal.file_bytes): "
        "no recording begins"
    )
    await journal.close()
    assert "closed" in str(journal.refusal())
    disk.free = 512 << 20
    journal = make(tmp_path / "other", disk=disk, disk_reserve_bytes=1 << 30)
    assert "512 MiB free, and journal.disk_reserve keeps 1 GiB" in str(journal.refusal())
    await journal.close()


async def test_what_is_admitted_begins_though_the_disk_would_be_asked_again_in_between(tmp_path):
    disk = FaultyDisk()
    disk.free = 1 << 30
    journal = make(tmp_path / "journal", disk=disk, disk_reserve_bytes=1 << 30)
    assert journal.refusal() is None
    journal._disk_checked_at -= 0.9  # a tenth before the disk is asked again
    assert journal.refusal() is None
    disk.free -= 1
    journal._disk_checked_at -= 0.4  # as long after the admission
    start(journal, 1)
    await journal.close()


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, DiskFull), (errno.EIO, Unavailable)])
@pytest.mark.parametrize("landed", [False, True], ids=["lost", "landed"])
@pytest.mark.parametrize("call", ["write", "sync"])
async def test_a_failed_commit_drops_its_whole_batch_and_nothing_durable(tmp_path, call, landed, number, expected):
    disk = FaultyDisk()
    journal = make(tmp_path / "journal", disk=disk)
    one, two, idle = (start(journal, each) for each in (1, 2, 3))
    for each, entry in enumerate((one, two, idle), 1):
        feed(entry, each, 3000)
    await idle.barrier()
    disk.arm(call, number, landed=landed)
    feed(one, 1, 500)
    feed(two, 2, 500)
    ending = asyncio.create_task(two.end("sealed"))
    with pytest.raises(expected):
        await one.barrier()
    with pytest.raises(expected):
        await ending
    for each, entry in ((1, one), (2, two)):
        assert type(entry.failed) is expected
        assert entry.appended == entry.durable == 3000
        assert entry.read(0, 3000) == audio(each, 0, 3000)
        with pytest.raises(expected):
            entry.append(b"x")
        with pytest.raises(expected):
            await entry.writable()
    assert journal.undurable == 0
    syncs = disk.syncs
    feed(idle, 3, 500)
    await idle.barrier()
    assert journal.undurable == 0
    assert disk.syncs == syncs + 1
    assert len(journal_files(tmp_path / "journal")) == 2  # never the file that saw a failure again
    again = start(journal, 1, offset=3000)
    again.append(b"other bytes than those that failed")
    await again.barrier()
    drop(journal)
    async with reopened(tmp_path / "journal") as (_, found):
        assert found[1].entry.read(3000, found[1].durable) == b"other bytes than those that failed"
        assert (found[2].durable, found[2].ended) == (3000, None)
        assert found[3].entry.read(0, 3500) == audio(3, 0, 3500)


async def test_durable_bytes_outlive_the_failure_of_the_commit_behind_them(tmp_path):
    disk = FaultyDisk()
    journal = make(tmp_path / "journal", disk=disk)
    entry = start(journal, 1)
    feed(entry, 1, 3000)
    await entry.barrier()
    disk.arm("sync", errno.EIO)
    feed(entry, 1, 200)
    with pytest.raises(Unavailable):
        await entry.barrier()
    entry.release(1000)
    await journal.close()
    async with reopened(tmp_path / "journal") as (_, found):
        assert found[1].entry.read(1000, 3000) == audio(1, 1000, 3000)
        found[1].entry.close()
    assert journal_files(tmp_path / "journal") == []


async def test_a_file_that_cannot_be_made_fails_its_batch_and_leaves_no_trace(tmp_path):
    disk = FaultyDisk()
    journal = make(tmp_path / "journal", disk=disk)
    entry = start(journal, 1)
    disk.arm("allocate", errno.ENOSPC)
    feed(entry, 1, 100)
    with pytest.raises(DiskFull):
        await entry.barrier()
    again = start(journal, 1)
    feed(again, 1, 100)
    await again.barrier()
    assert len(journal_files(tmp_path / "journal")) == 1
    assert journal.usage().files == 1
    await journal.close()


async def test_a_failure_takes_the_batches_behind_it_along(tmp_path):
    """They continue the same recordings: written alone they would be a gap."""
    disk = FaultyDisk()
    journal = make(tmp_path / "journal", disk=disk, file_bytes=4096)
    entry = start(journal, 1)
    disk.arm("sync", errno.EIO)
    feed(entry, 1, 20_000)
    with pytest.raises(Unavailable):
        await entry.barrier()
    assert entry.durable == 0
    await journal.close()
    assert journal_files(tmp_path / "journal") == []


async def test_a_file_system_without_allocation_is_used_without_it(tmp_path, monkeypatch):
    def unsupported(_fd, _offset, _size):
        raise OSError(errno.EOPNOTSUPP, "unsupported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    journal = make(tmp_path / "journal")
    entry = start(journal, 1)
    for _ in range(3):
        feed(entry, 1, 10_000)
        await entry.barrier()
        assert entry.read(0, entry.durable) == audio(1, 0, entry.durable)
    drop(journal)
    async with reopened(tmp_path / "journal") as (_, found):
        assert found[1].durable == 30_000


async def test_changed_bytes_are_never_returned_as_audio(tmp_path, journal):
    entry = start(journal, 1)
    feed(entry, 1, 4800)
    await entry.barrier()
    [path] = journal_files(tmp_path / "journal")
    data = path.read_bytes()
    spot = len(data.rstrip(b"\0")) - 5
    with path.open("r+b") as file:
        file.seek(spot)
        file.write(bytes([data[spot] ^ 1]))
    with pytest.raises(Tampered, match="no audio"):
        entry.read(0, 4800)
    assert entry.read(0, 3200) == audio(1, 0, 3200)


async def test_reads_in_threads_agree_while_the_recording_grows_and_is_released(tmp_path):
    journal = make(tmp_path / "journal", file_bytes=32_768)
    entry = start(journal, 1)
    released = [0]
    stop = threading.Event()
    reads = [0]

    def reader():
        while not stop.is_set():
            begin, end = released[0], entry.durable
            try:
                data = entry.read(begin, end)
            except ValueError:
                assert released[0] > begin  # overtaken, and said so
                continue
            assert data == audio(1, begin, end)
            reads[0] += 1

    readers = [asyncio.create_task(asyncio.to_thread(reader)) for _ in range(2)]
    try:
        for turn in range(300):
            feed(entry, 1, 1600, piece=160)
            await entry.writable()
            if turn % 20 == 19:
                await entry.barrier()
                released[0] = max(0, entry.durable - 4000)
                entry.release(released[0])
    finally:
        stop.set()
    await asyncio.gather(*readers)
    assert reads[0] > 10
    await journal.close()


async def test_closing_commits_what_is_queued_and_gives_back_the_allocation(tmp_path):
    journal = make(tmp_path / "journal")
    entry = start(journal, 1)
    feed(entry, 1, 3000)
    await journal.close()
    await journal.close()
    assert entry.durable == 3000
    [path] = journal_files(tmp_path / "journal")
    assert path.stat().st_size < 4000
    assert journal.refusal() is not None
    with pytest.raises(Unavailable):
        entry.append(b"x")
    with pytest.raises(Unavailable):
        start(journal, 2)


async def test_no_plaintext_and_no_key_is_on_disk(tmp_path):
    journal = make(tmp_path / "journal")
    secret = os.urandom(4000)
    entry = start(journal, 7)
    entry.append(secret)
    await entry.end("truncated:a reason nobody should read")
    drop(journal)
    disk = b"".join(path.read_bytes() for path in (tmp_path / "journal").iterdir())
    assert not any(secret[at : at + 32] in disk for at in range(4000 - 32 + 1))
    assert key_of(opening(7).coordinate).material not in disk
    assert b"nobody should read" not in disk


async def test_metrics_count_each_entry_once_a_commit(tmp_path):
    registry = CollectorRegistry()
    journal = make(tmp_path / "journal", metrics=Metrics(registry))
    entries = [start(journal, number) for number in (1, 2, 3)]
    for number, entry in enumerate(entries, 1):
        feed(entry, number, 4800)
    await entries[0].barrier()
    assert registry.get_sample_value("callvault_ingest_ack_seconds_count") == 3
    assert registry.get_sample_value("callvault_journal_commit_seconds_count") == 1
    assert registry.get_sample_value("callvault_journal_bytes") == journal.usage().bytes_used > 3 * 4800
    await journal.close()
