"""Notices a recorder that is waited for and sends nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from vault.server.connections.backpressure import Intake


class Quiet:
    """Calls `tell` once nothing has come for `patience()` seconds; close it when done.

    One timer a connection: arming one for each piece of audio costs more.
    """

    def __init__(self, intake: Intake, *, patience: Callable[[], float], tell: Callable[[], None]) -> None:
        self._intake = intake
        self._patience = patience
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._since = math.inf
        self._timer = self._loop.call_later(patience(), self._look)

    def waiting(self) -> None:
        """From now on the recorder is waited for."""
        self._since = self._loop.time()

    def taking(self) -> None:
        """What it sent is being taken: however long that lasts, the recorder is not to blame."""
        self._since = math.inf

    @property
    def seconds(self) -> float:
        """For how long the recorder has been waited for; not while it is held back."""
        return self._intake.silence(self._since, self._loop.time())

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        quiet, patience = self.seconds, self._patience()
        if quiet < patience:
            self._timer = self._loop.call_later(patience - quiet, self._look)
        else:
            self._tell()
