"""Keeps keys and audio in memory out of core files, debuggers and swap, where the process is permitted to."""

from __future__ import annotations

import ctypes
import logging
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vault.model import Finding

_PR_SET_DUMPABLE: Final = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK: Final = 14
_SWAP_HINT: Final = "turn swap off or encrypt it, or let the service lock memory (systemd: LimitMEMLOCK=infinity)"

logger = logging.getLogger(__name__)


def guard_memory() -> None:
    """Disable core files and other processes' access to this one's memory, and keep it out of swap where permitted.

    A refusal is logged; `doctor` says what to do. Python copies and frees memory as it likes, so this bounds where keys
    can end up, not how long they stay in memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    # Without this a piped core_pattern still gets the memory even if core files are off, and ptrace reads it live.
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        logger.warning("the process stays dumpable", extra={"fields": {"errno": ctypes.get_errno()}})
    if not may_lock():
        # A finite limit would turn the next large allocation into a failure: worse than swap.
        logger.info("memory is not locked: the process may not", extra={"fields": {"swap": swap_in_use()}})
    elif libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        logger.warning("memory is not locked", extra={"fields": {"errno": ctypes.get_errno()}})


def may_lock(*, status: Path = Path("/proc/self/status")) -> bool:
    """Tell whether this process may lock as much memory as it will ever use."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return False
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)


def swap_in_use(*, swaps: Path = Path("/proc/swaps")) -> bool:
    """Tell whether the machine swaps; True if that cannot be read."""
    try:
        return len(swaps.read_text().splitlines()) > 1
    except OSError:
        return True


def memory_findings(
    *, status: Path = Path("/proc/self/status"), swaps: Path = Path("/proc/swaps")
) -> Sequence[Finding]:
    """Return `doctor`'s findings on keys in memory."""
    if not swap_in_use(swaps=swaps):
        return (Finding(level="ok", subject="memory", message="the machine does not swap"),)
    if may_lock(status=status):
        return (Finding(level="ok", subject="memory", message="the machine swaps, and this user may lock memory"),)
    text = "the machine swaps and this user may not lock memory: keys of living recordings can reach the swap device"
    return (Finding(level="warning", subject="memory", message=text, hint=_SWAP_HINT),)
