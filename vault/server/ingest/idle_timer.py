"""A timer for recorders that are waited for and send nothing."""

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
        """Note that something has come."""
        self.heard_at = self._loop.time()

    def waiting(self) -> None:
        """Start: the recorder is waited for from now on."""
        self._taking = False

    def taking(self) -> None:
        """Stop: what the recorder sent is being processed, which is not its own silence."""
        self._taking = True

    @property
    def seconds(self) -> float:
        """For how many seconds the recorder has been waited for, without the time it was held back."""
        return 0.0 if self._taking else self._intake.silence(self.heard_at, self._loop.time())

    def again(self, seconds: float) -> None:
        """Look again after so many seconds; also after `tell` was called, which ends the looking."""
        self._timer = self._loop.call_later(seconds, self._look)

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _look(self) -> None:
        left = self._left(self.seconds)
        if left > 0:
            self.again(left)
        else:
            self._tell()
