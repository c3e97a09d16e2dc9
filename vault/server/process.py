"""How a server process manages memory: allocator and collector suited to the data path."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEEP_BYTES: Final = 64 << 20
_COLLECT_AFTER: Final = 20_000
_SWITCH_SECONDS: Final = 0.0005


def tune() -> None:
    """Keep segment-sized buffers in the process between uses, and spare the collector the start-up objects.

    glibc would map and unmap each megabyte buffer, and every page of it would fault anew: a third of the kernel time
    of an upload. Other C libraries ignore the request.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES // 2)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
    # The event loop must not wait five milliseconds for each worker that happens to hold the interpreter.
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
