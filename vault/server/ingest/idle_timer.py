"""Notices a recorder that is waited for and sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vault.server.connections.backpressure import Intake


class IdleTimer:
    """Calls `tell` once a recorder that is waited for has sent nothing for as long as it may; close it when done.

    `left` is given for how many seconds nothing has come, and returns for how many more that may be.
    One timer a connection: arming one for each piece of audio costs more.
    """

    __slots__ = ("_intake", "_left", "_loop", "_taking", "_tell", "_timer", "heard_at")

    def __init__(self, intake: Intake, *, left: Callable[[float], float], tell: Callable[[], None]) -> None:
        self._intake = intake
        self._left = left
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._taking = True
        self.heard_at = self._loop.time()
        """When something came last, on the loop's clock."""
        self.again(left(0.0))

    def heard(self) -> None:
        """Something has come."""
        self.heard_at = self._loop.time()

    def waiting(self) -> None:
        """From now on the recorder is waited for."""
        self._taking = False

    def taking(self) -> None:
        """What it sent is being taken: however long that lasts, the recorder is not to blame."""
        self._taking = True

    @property
    def seconds(self) -> float:
        """For how long the recorder has been waited for; not while it is held back."""
        return 0.0 if self._taking else self._intake.silence(self.heard_at, self._loop.time())

    def again(self, seconds: float) -> None:
        """Look again after so many seconds; also after `tell` was called, which ends the looking."""
        self._timer = self._loop.call_later(seconds, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        left = self._left(self.seconds)
        if left > 0:
            self.again(left)
        else:
            self._tell()
