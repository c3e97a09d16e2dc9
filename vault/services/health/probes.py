"""Questions to what may hang, asked by one task at a time and answered for everybody within a bound."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from vault.errors import Unavailable, VaultError, reason
from vault.ports.time import Clock

_CLOSE_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class Look:
    """One question. A second one is never sent after a first that has no answer: what hangs gets no crowd."""

    def __init__(self, what: str, ask: Callable[[], Awaitable[None]], *, clock: Clock) -> None:
        self._what = what
        self._ask = ask
        self._clock = clock
        self._task: asyncio.Task[VaultError | None] | None = None
        self._began = 0.0

    async def within(self, seconds: float) -> VaultError | None:
        """Ask, or join who asks already; return None if all is well, else what the answer was, or that there is none.

        Returns `seconds` after the question was sent at the latest.
        """
        task = self._task
        if task is None or task.done():
            self._began = self._clock.monotonic()
            task = self._task = asyncio.create_task(self._answer())
        waited = self._clock.monotonic() - self._began
        await asyncio.wait([task], timeout=max(0.0, seconds - waited))
        if task.done():
            return task.result()
        waited = self._clock.monotonic() - self._began
        return Unavailable(f"{self._what} has not answered for {waited:.1f} s", cause=self._what.removeprefix("the "))

    async def _answer(self) -> VaultError | None:
        try:
            await self._ask()
        except VaultError as error:
            return error
        except Exception as error:
            logger.exception("a look failed unexpectedly", extra={"fields": {"at": self._what}})
            return Unavailable(f"looking at {self._what} failed unexpectedly ({reason(error)})")
        return None

    async def close(self) -> None:
        """Give up what has no answer yet."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
