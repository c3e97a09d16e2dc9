"""Clients from npm, in the versions of `package-lock.json`."""

import fcntl
import functools
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parent
_LOCK = CLIENTS / "package-lock.json"


@functools.cache
def node_modules():
    """Return the folder of the installed packages; scripts beside this module import them by name.

    Installs them if the lock file has changed since they were. Skips where node is missing.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: Debian's nodejs and npm have it")
    installed = CLIENTS / "node_modules"
    stamp = installed / ".installed"
    with _LOCK.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel workers: one installs, the others find it done
        wanted = hashlib.sha256(lock.read()).hexdigest()
        if not stamp.exists() or stamp.read_text() != wanted:
            done = subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund"], cwd=CLIENTS, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            stamp.write_text(wanted)
    return installed
