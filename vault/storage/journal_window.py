"""Reads of a journal file that keep the interpreter lock.

One call's records lie megabytes apart, so a segment is hundreds of reads of a few hundred bytes, nearly all of them
from the page cache. `os.pread` gives the lock to the event loop for each and waits to get it back, which costs many
times the read. A mapping costs a page fault a record, and a disk error in it ends the process.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

WINDOW_BYTES: Final = 64 << 10

_pread = ctypes.PyDLL(None, use_errno=True).pread
_pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
_pread.restype = ctypes.c_ssize_t


class Window:
    """Memory that reads land in, one after the other; one thread's."""

    __slots__ = ("_address", "_view")

    def __init__(self) -> None:
        self._make(WINDOW_BYTES)

    def _make(self, size: int) -> None:
        memory = bytearray(size)
        self._view = memoryview(memory)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def read(self, fd: int, position: int, size: int) -> memoryview:
        """Return the `size` bytes at `position`, fewer at the end of the file, valid until the next read; OSError."""
        if size > len(self._view):
            self._make(size)
        got = _pread(fd, self._address, size, position)
        if got < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return self._view[:got]
