"""A process that approves one erasure and is killed (SIGKILL, by itself) at one named write of it.

`python -m tests.faults.erasing BASE ERASURE WRITE lost|landed`. The writes are those that `FaultyPort` and its kin
count: a port and a method of it, such as `catalog.intend_shred`.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.faults.crashing import Faults, ManualClock, config_at, person, start
from vault.keystore import file

MATERIAL_BYTES = 1 << 12
SURVIVED = 3


class Kill(Faults):
    """Ends the process at the first write of a name, before it happens or right after."""

    def __init__(self, name, *, landed):
        super().__init__()
        self._name, self._landed_then, self._reached = name, landed, False

    def before(self, name):
        if name == self._name:
            self._reached = True
            if not self._landed_then:
                os.kill(os.getpid(), signal.SIGKILL)

    def after(self):
        if self._reached:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(base, erasure, name, mode):
    file.MATERIAL_BYTES = MATERIAL_BYTES
    process = await start(config_at(Path(base)), ManualClock(), Faults())
    kill = Kill(name, landed=mode == "landed")
    process.faults.before, process.faults.after = kill.before, kill.after
    await process.vault.erasures.approve(erasure, actor=person("bob"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    sys.exit(SURVIVED)
