"""Writes one body into the spool, sealed while it arrives, and reads it again window by window.

The plaintext of a spooled file is the body, then its MD5, in one chunked-encryption message (docs/format.md, "Parts of
uploads"). Reading the MD5 authenticates the end of the file and so its length.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

from vault.crypto import chunked
from vault.crypto.derive import Purpose, subkey
from vault.errors import Truncated
from vault.ids import RecordingId, id_bytes
from vault.model import DataKey
from vault.ports.journal import SpoolFile
from vault.ports.time import Entropy
from vault.services.ingest.slots import Resource

SPOOL: Final = Resource(
    name="spool",
    what="bytes of the spool",
    full="the spool of uploads in parts is full; what was acknowledged is safe",
    hint="uploads that nobody completes keep its room for their grace, or parts.max_bytes is too small",
    retry_after_seconds=10,
)
_WINDOW_BYTES: Final = 16 * chunked.CHUNK_BYTES
_MD5_BYTES: Final = 16
_CONTEXT: Final = b"callvault/part/1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartKey:
    """The place of a spooled body, and the key it is sealed under."""

    key: DataKey = field(repr=False)
    recording: RecordingId
    number: int

    @property
    def context(self) -> bytes:
        """The associated data of the file."""
        return _CONTEXT + id_bytes(self.recording) + self.number.to_bytes(4, "big")

    @property
    def input_key(self) -> bytes:
        """The key of the message."""
        return subkey(self.key, Purpose.UPLOAD_PART)


class Windows:
    """Counts the memory of all bodies that are being written into the spool."""

    def __init__(self, *, bound: int) -> None:
        self.bytes = 0
        self._bound = bound

    @property
    def crowded(self) -> bool:
        """Whether more than `bound` bytes are in memory; new bytes are then written at once."""
        return self.bytes > self._bound

    def take(self, size: int) -> None:
        """Count `size` more bytes."""
        self.bytes += size

    def give(self, size: int) -> None:
        """Count `size` bytes less, after they were written or dropped."""
        self.bytes -= size


class BodyWriter:
    """Seals a body into a spool file; call `drop` when done. It uses one window of memory, less if crowded."""

    def __init__(self, file: SpoolFile, part: PartKey, *, entropy: Entropy, windows: Windows) -> None:
        self.file = file
        self._part = part
        self._sealer = chunked.Sealer(part.input_key, entropy(chunked.SALT_BYTES), part.context)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._pending = bytearray()
        self._windows = windows
        self._wait(self._sealer.prefix)
        self.size = 0
        self.first = b""

    async def write(self, piece: bytes) -> None:
        """Write more of the body."""
        if len(self.first) < _MD5_BYTES:
            self.first += piece[:_MD5_BYTES]
        self.size += len(piece)
        self._md5.update(piece)
        self._wait(self._sealer.update(piece))
        if len(self._pending) >= _WINDOW_BYTES or self._windows.crowded:
            await self._flush()

    async def end(self) -> bytes:
        """Write the end and return the MD5; durable only once the file is kept."""
        md5 = self._md5.digest()
        self._wait(self._sealer.update(md5) + self._sealer.finish())
        await self._flush()
        return md5

    def drop(self) -> None:
        """Free the memory; bytes that were not written yet are lost."""
        self._windows.give(len(self._pending))
        self._pending = bytearray()

    def _wait(self, sealed: bytes) -> None:
        self._pending += sealed
        self._windows.take(len(sealed))

    async def _flush(self) -> None:
        data, self._pending = bytes(self._pending), bytearray()
        try:
            await self.file.append(data)
        finally:
            self._windows.give(len(data))


class BodyReader:
    """Reads a spooled body whose end was written."""

    def __init__(self, file: SpoolFile, opener: chunked.Opener, total: int) -> None:
        self._file = file
        self._opener = opener
        self._total = total

    @classmethod
    async def open(cls, file: SpoolFile, part: PartKey) -> BodyReader:
        """Return a reader; Tampered or Truncated if the file is not that part."""
        total = chunked.plaintext_length(file.size)
        if total < _MD5_BYTES:
            raise Truncated("a spooled part is shorter than its own end")
        prefix = await file.read(0, chunked.PREFIX_BYTES)
        return cls(file, chunked.Opener(part.input_key, part.context, prefix), total)

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return self._total - _MD5_BYTES

    async def md5(self) -> bytes:
        """Return the MD5 that was sealed after the body."""
        return await self._window(self.size, self._total)

    async def pieces(self, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the body, or its first `end` bytes, in pieces of at most 256 KiB."""
        stop = self.size if end is None else end
        for start in range(0, stop, _WINDOW_BYTES):
            yield await self._window(start, min(start + _WINDOW_BYTES, stop))

    async def _window(self, start: int, end: int) -> bytes:
        window = chunked.chunk_window(start, end, self._total)
        return self._opener.window(window, await self._file.read(window.start, window.end))
