"""What a crash, a torn write or a damaged disk leaves, and what replay makes of it."""

import asyncio
import errno
import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.helpers.journals import FaultyDisk, audio, drop, journal_files, make, reopened, start
from vault.errors import ConfigError, Unavailable
from vault.format.journal import HEADER_BYTES, PREFIX_BYTES, decode_header, decode_prefix
from vault.storage.journal.file import JournalFile

ROOT = Path(__file__).parents[2]

WRITER = textwrap.dedent("""
    import asyncio, os, pathlib, random, sys
    from tests.helpers.journals import audio, make, replay, start

    async def main():
        directory, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
        dice = random.Random(seed)
        journal = make(directory, file_bytes=65536, commit_interval_seconds=0.001)
        found = await replay(journal)
        entries = {n: found[n].entry if n in found else start(journal, n) for n in range(1, 9)}
        told = {n: entry.durable for n, entry in entries.items()}
        while True:
            for n, entry in entries.items():
                size = dice.choice((20, 160, 1600, 9000))
                entry.append(audio(n, entry.appended, entry.appended + size))
                await entry.writable()
            if dice.random() < 0.2:
                await entries[dice.randint(1, 8)].barrier()
            else:
                await asyncio.sleep(0)
            news = [(n, e.durable) for n, e in entries.items() if e.durable != told[n]]
            if news:
                os.write(1, b"".join(b"%d %d\\n" % pair for pair in news))
                told.update(news)

    asyncio.run(main())
""")


def records(path):
    """Return salt and the (handle, seq) of every record in a file, in order."""
    data = path.read_bytes()
    position, found = HEADER_BYTES, []
    if not data.strip(b"\0"):
        return b"", []  # killed between making the file and the first write
    while prefix := decode_prefix(data, position):
        found.append((prefix.handle, prefix.seq))
        position += PREFIX_BYTES + prefix.length
    return decode_header(data).salt, found


def run_until_killed(directory, turn, lifetime):
    """Run the writer, kill -9 it, and return the durable offsets that it told the world."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), str(turn)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        told = {}
        first = process.stdout.readline()
        time.sleep(lifetime)
        process.kill()
        lines = [first, *process.stdout.read().split(b"\n")[:-1]]
        for line in lines:
            number, offset = map(int, line.split())
            told[number] = offset
    return told


async def test_every_acknowledged_byte_survives_kill_9_and_no_nonce_repeats(tmp_path):
    directory = tmp_path / "journal"
    directory.mkdir()
    dice = random.Random(1)
    acknowledged = {}
    for turn in range(10):
        acknowledged |= await asyncio.to_thread(run_until_killed, directory, turn, dice.uniform(0.0, 0.06))
        if turn % 3 == 2:
            async with reopened(directory) as (_, found):
                for number, offset in acknowledged.items():
                    assert found[number].durable >= offset
                    entry = found[number].entry
                    assert entry.read(0, entry.durable) == audio(number, 0, entry.durable)
                    assert found[number].ended is None
    assert len(acknowledged) == 8
    assert not [path for path in journal_files(directory) if path.suffix == ".damaged"]
    pairs = [(salt, *record) for salt, found in map(records, journal_files(directory)) for record in found]
    assert len(pairs) > 100
    assert len(set(pairs)) == len(pairs)


async def written(directory, *, pieces=3, size=40, ends=True):
    """Write `pieces` for each of two recordings, one commit each, and return file and bytes."""
    journal = make(directory)
    entries = {number: start(journal, number) for number in (1, 2)}
    for _ in range(pieces):
        for number, entry in entries.items():
            entry.append(audio(number, entry.appended, entry.appended + size))
            await entry.barrier()
    if ends:
        await entries[2].end("sealed")
    await journal.close()
    [path] = journal_files(directory)
    return path, path.read_bytes()


def boundaries(data):
    """Return where each record ends and what it is."""
    position, found = HEADER_BYTES, []
    while prefix := decode_prefix(data, position):
        position += PREFIX_BYTES + prefix.length
        found.append((position, prefix))
    return found


def expected_after(data, size):
    """Return per recording how many bytes the whole records within the first `size` bytes hold."""
    found = {}
    for end, prefix in boundaries(data):
        if end <= size:
            kept = prefix.length - 16 if prefix.kind == 2 else 0
            found[prefix.handle] = found.get(prefix.handle, 0) + kept
    return found


@pytest.mark.parametrize("fill", [b"", b"\0"], ids=["truncated", "zero-filled"])
async def test_a_file_torn_at_any_byte_yields_exactly_its_whole_records(tmp_path, fill):
    path, data = await written(tmp_path / "journal", pieces=2)
    tail = len(data)
    for size in range(tail):
        path.write_bytes(data[:size] + fill * (tail - size + 100 if fill else 0))
        intact = size
        while fill and intact < tail and not data[intact]:
            intact += 1  # a record that ends in zero bytes is whole without them
        expected = expected_after(data, intact)
        async with reopened(tmp_path / "journal") as (_, found):
            assert {number: one.durable for number, one in found.items()} == expected
            for number, one in found.items():
                assert one.entry.read(0, one.durable) == audio(number, 0, one.durable)
        keep = [each for each in journal_files(tmp_path / "journal") if each != path]
        # A header cut short and zero-filled is a torn first commit; nothing here may look like damage.
        assert not [each for each in keep if each.suffix == ".damaged"]
        path.unlink(missing_ok=True)


async def test_a_flipped_bit_ends_only_its_recording_and_the_file_is_kept(tmp_path):
    path, data = await written(tmp_path / "journal", pieces=3)
    marks = boundaries(data)
    begin = HEADER_BYTES
    for end, prefix in marks[:-1]:
        for spot in sorted({begin, begin + 4, begin + 5, begin + 16, begin + PREFIX_BYTES, end - 1}):
            path.write_bytes(data[:spot] + bytes([data[spot] ^ 1]) + data[spot + 1 :])
            before = expected_after(data, begin).get(prefix.handle, 0)
            other = 3 - prefix.handle
            async with reopened(tmp_path / "journal") as (_, found):
                assert found[other].durable == 120, (spot, prefix)
                assert found[other].ended == ("sealed" if other == 2 else None)
                survivors = [prefix.handle] if prefix.seq else []
                for number in [other, *survivors]:
                    one = found[number]
                    assert one.durable == (before if number == prefix.handle else 120)
                    assert one.entry.read(0, one.durable) == audio(number, 0, one.durable)
                    one.entry.close()
            [kept] = journal_files(tmp_path / "journal")
            last_of_all = not any(mark > end for mark, _ in marks)
            assert (kept.suffix == ".damaged") is not last_of_all
            kept.unlink()
        begin = end


async def test_a_hole_of_zeroes_before_good_records_is_damage_and_not_the_end(tmp_path):
    path, data = await written(tmp_path / "journal")
    marks = boundaries(data)
    hole_from, hole_to = marks[3][0], marks[4][0]
    path.write_bytes(data[:hole_from] + bytes(hole_to - hole_from) + data[hole_to:])
    async with reopened(tmp_path / "journal") as (_, found):
        assert sorted(one.durable for one in found.values()) == [40, 120]
        for one in found.values():
            one.entry.close()
    assert [each.suffix for each in journal_files(tmp_path / "journal")] == [".damaged"]
    async with reopened(tmp_path / "journal") as (journal, found):
        assert not found  # set aside means that no later start takes it up again
        assert journal.usage().bytes_used == 0


async def test_bytes_lost_between_two_files_end_the_recording_at_the_gap(tmp_path):
    journal = make(tmp_path / "journal", file_bytes=1024)
    entry = start(journal, 1)
    for _ in range(6):
        entry.append(audio(1, entry.appended, entry.appended + 600))
        await entry.barrier()
    await journal.close()
    files = journal_files(tmp_path / "journal")
    assert len(files) == 6
    damaged = files[2].read_bytes()
    files[2].write_bytes(damaged[:-100])
    async with reopened(tmp_path / "journal") as (_, found):
        assert (found[1].first_offset, found[1].durable) == (0, 1200)
        found[1].entry.close()
    # What lies behind the gap is authentic and was not handed out: it is kept.
    assert [path.suffix for path in journal_files(tmp_path / "journal")] == [".damaged"] * 3


async def test_a_header_that_was_changed_loses_no_file(tmp_path):
    path, data = await written(tmp_path / "journal")
    path.write_bytes(data[:30] + b"\xff" + data[31:])
    async with reopened(tmp_path / "journal") as (_, found):
        assert not found
    assert [each.suffix for each in journal_files(tmp_path / "journal")] == [".damaged"]


async def test_a_file_of_a_later_version_refuses_the_start(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("vault.format.journal.VERSION", 2)
        path, data = await written(tmp_path / "journal")
    with pytest.raises(ConfigError, match="version 2"):
        async with reopened(tmp_path / "journal"):
            pass
    assert path.read_bytes() == data


async def test_a_file_that_cannot_be_read_is_unavailable_and_not_empty(tmp_path, monkeypatch):
    path, data = await written(tmp_path / "journal")

    def broken(_self):
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "load", broken)
        with pytest.raises(Unavailable):
            async with reopened(tmp_path / "journal"):
                pass
    assert path.read_bytes() == data


async def test_bytes_that_landed_with_a_failed_commit_give_way_to_what_followed(tmp_path):
    """Even if the disk did not let the journal take them away again."""

    class Stubborn(FaultyDisk):
        def truncate(self, fd, size):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk = Stubborn()
    journal = make(tmp_path / "journal", disk=disk)
    entry = start(journal, 1)
    entry.append(audio(1, 0, 1000))
    await entry.barrier()
    disk.arm("sync", errno.EIO, landed=True)
    entry.append(b"never acknowledged" * 10)
    with pytest.raises(Unavailable):
        await entry.end("sealed")
    again = start(journal, 1, offset=1000)
    again.append(audio(1, 1000, 1500))
    await again.barrier()
    drop(journal)
    async with reopened(tmp_path / "journal") as (_, found):
        assert (found[1].durable, found[1].ended) == (1500, None)
        assert found[1].entry.read(1000, 1500) == audio(1, 1000, 1500)
