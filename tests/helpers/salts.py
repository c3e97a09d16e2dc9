"""What no vault may ever repeat: a journal record's (file salt, handle, seq) and an object's salt."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from vault.errors import Truncated
from vault.format.codec import unframe
from vault.format.journal import HEADER_BYTES, PREFIX_BYTES, decode_header, decode_prefix, parse_file_name
from vault.storage.objects.tree import HEADER_BYTES as OBJECT_HEADER_BYTES

_SALT_BYTES = 24


class SaltLedger:
    """Remembers every salt and record place seen on disk across all incarnations of one vault."""

    def __init__(self, config, kept):
        self._journal = config.journal_path
        self._objects = config.objects_path / "objects"
        self._kept = kept
        self._kept.mkdir()
        self._files = {}
        """Journal file salt → digest of the file's bytes as its writer left them."""
        self._objects_seen = set()
        self._object_salts = {}
        self.records = 0

    def keep(self):
        """Link every journal file that exists now, so that one removed before the next kill is still looked at."""
        with os.scandir(self._journal) as entries:
            for entry in entries:
                if parse_file_name(entry.name) is not None:
                    with suppress(FileExistsError, FileNotFoundError):
                        os.link(entry.path, self._kept / entry.name)

    def inspect(self):
        """Look at all there is; the writer is dead, so every file is what it will be for ever."""
        self.keep()
        for path in sorted(self._kept.iterdir()):
            self._journal_file(path)
            path.unlink()
        self._walk_objects()

    def _journal_file(self, path):
        data = path.read_bytes().rstrip(b"\0")
        try:
            salt = decode_header(data).salt
        except Truncated:
            assert len(data) <= HEADER_BYTES, f"{path.name} has records and no header"
            return
        digest = hashlib.sha256(data).digest()
        # Numbers start over once every file is gone: it is the salt that makes a file one of its kind.
        if salt in self._files:
            same = self._files[salt] == digest
            assert same, f"the salt of {path.name} was used for other records, or the file was appended to"
            return
        self._files[salt] = digest
        self._records(path.name, data)

    def _records(self, name, data):
        position = HEADER_BYTES
        seen = set()
        while (prefix := decode_prefix(data, position)) is not None:
            place = (prefix.handle, prefix.seq)
            assert place not in seen, f"{name} uses handle {prefix.handle}, seq {prefix.seq} twice"
            seen.add(place)
            position += PREFIX_BYTES + prefix.length
        self.records += len(seen)

    def _walk_objects(self):
        for directory, _, names in os.walk(self._objects):
            for name in names:
                path = Path(directory, name)
                stat = path.stat()
                place = (path, stat.st_ino, stat.st_mtime_ns)
                if place in self._objects_seen:
                    continue
                salt = _object_salt(path)
                assert salt not in self._object_salts, f"{path} repeats the salt of {self._object_salts[salt]}"
                self._objects_seen.add(place)
                self._object_salts[salt] = path

    @property
    def objects(self):
        return len(self._object_salts)

    @property
    def journal_files(self):
        return len(self._files)


def _object_salt(path):
    with path.open("rb") as file:
        data = file.read(OBJECT_HEADER_BYTES + 8192)[OBJECT_HEADER_BYTES:]
    _, start = unframe(data[:4], data)
    salt = data[start : start + _SALT_BYTES]
    assert len(salt) == _SALT_BYTES, f"{path} ends inside its salt"
    return salt
