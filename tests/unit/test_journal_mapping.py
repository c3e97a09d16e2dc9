"""The mapping that journal reads go through, against the writer that trims the file meanwhile."""

import mmap
import threading

from vault.storage import journal_file
from vault.storage.journal_file import Disk, JournalFile


def test_a_mapping_made_while_the_writer_trims_the_file_still_reads_what_is_durable(tmp_path, monkeypatch):
    file = JournalFile(tmp_path / "journal", disk=Disk(), number=1, salt=bytes(32), capacity=1 << 20)
    file.commit(b"durable", 0, last=False)
    trimming = threading.Thread(target=file.trim)
    real = mmap.mmap

    def map_late(fd, size, **options):
        """Let the writer have its turn between the look at the file's size and its mapping."""
        trimming.start()
        trimming.join(0.2)
        return real(fd, size, **options)

    monkeypatch.setattr(journal_file.mmap, "mmap", map_late)
    assert file.slice(0, 7) == b"durable"
    trimming.join()
    assert (tmp_path / "journal").stat().st_size == 7
    file.close()
