"""What a server process asks of its machine: allocator and collector settings for the data path, and descriptors."""

from __future__ import annotations

import ctypes
import gc
import logging
import resource
import sys
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEEP_BYTES: Final = 64 << 20
_COLLECT_AFTER: Final = 20_000
_SWITCH_SECONDS: Final = 0.0005
_MOST_DESCRIPTORS: Final = 1 << 20
"""The most that Linux gives a process, unless an administrator raised that too."""

logger = logging.getLogger(__name__)


def tune() -> None:
    """Keep segment-sized buffers in the process between uses, and exclude the start-up objects from collection.

    glibc would map and unmap each megabyte buffer and fault its pages in anew: a third of the kernel time of an upload.
    Other C libraries ignore the request.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES // 2)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
    # The event loop must not wait five milliseconds for each worker thread that holds the interpreter lock.
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


def descriptor_limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> None:
    """Raise the limit as far as the process may, and log it: each connection needs one or two descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    if soft not in (resource.RLIM_INFINITY, wanted):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            logger.warning("the limit of descriptors could not be raised", extra={"fields": {"limit": soft}})
    logger.info("descriptors", extra={"fields": {"limit": descriptor_limit(), "was": soft}})
