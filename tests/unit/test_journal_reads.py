"""Journal reads against what can happen to the file meanwhile."""

import os

import pytest

from tests.helpers.journals import audio, make, start
from vault.errors import Unavailable
from vault.storage.journal.file import WINDOW_BYTES, Disk, JournalFile, Window


@pytest.fixture
def file(tmp_path):
    file = JournalFile(tmp_path / "journal", disk=Disk(), number=1, salt=bytes(32), capacity=1 << 20)
    file.commit(b"durable", 0, last=True)
    yield file
    file.close()


def test_a_read_returns_what_lies_there_and_less_at_the_end_of_the_file(file):
    assert file.read(0, 7, Window()) == b"durable"
    assert file.read(3, 100, Window()) == b"able"


def test_a_read_larger_than_the_window_is_whole(tmp_path):
    data = os.urandom(3 * WINDOW_BYTES)
    file = JournalFile(tmp_path / "journal", disk=Disk(), number=1, salt=bytes(32), capacity=1 << 20)
    file.commit(data, 0, last=False)
    window = Window()
    assert file.read(1, len(data) - 1, window) == data[1:]
    assert file.read(5, 10, window) == data[5:15]
    file.close()


def test_a_file_that_is_gone_is_not_read_through_a_descriptor_that_another_file_has_now(file, tmp_path):
    file.close()
    (tmp_path / "other").write_bytes(b"another file, which gets the same descriptor")
    with (tmp_path / "other").open(), pytest.raises(ValueError, match="gone"):
        file.read(0, 7, Window())


def test_a_disk_that_fails_is_unavailable_and_the_process_lives(file, tmp_path, monkeypatch):
    directory = os.open(tmp_path, os.O_RDONLY)  # reading it fails like a broken disk does, with an error number
    monkeypatch.setattr(file, "_fd", directory)
    with pytest.raises(Unavailable, match="Is a directory"):
        file.read(0, 7, Window())
    os.close(directory)


@pytest.mark.parametrize("between", [1, 1000, 5000, 70_000])
async def test_any_range_reads_the_same_whether_its_records_lie_together_or_apart(tmp_path, between):
    journal = make(tmp_path / "journal")
    ours, other = start(journal, 1), start(journal, 2)
    length = 0
    for size in (1, 300, WINDOW_BYTES - 40, WINDOW_BYTES, 2 * WINDOW_BYTES, 7, *[300] * 400):
        ours.append(audio(1, length, length + size))
        other.append(bytes(between))
        length += size
        await ours.barrier()
    for begin in (0, 1, 299, 301, 302, WINDOW_BYTES, length - 60_000, length - 301):
        for end in (begin, begin + 1, begin + 299, begin + 301, length - 1, length):
            assert ours.read(begin, min(end, length)) == audio(1, begin, min(end, length))
    await journal.close()
