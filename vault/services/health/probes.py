"""Checks of what may hang: one task asks at a time, and everyone gets its answer within a bound."""

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
    """One check. While an answer is outstanding no second question is sent, so that nothing piles up."""

    def __init__(self, what: str, ask: Callable[[], Awaitable[None]], *, clock: Clock) -> None:
        self._what = what
        self._ask = ask
        self._clock = clock
        self._task: asyncio.Task[VaultError | None] | None = None
        self._began = 0.0

    async def within(self, seconds: float) -> VaultError | None:
        """Ask, or join a question under way; return None if all is well, else the error; no answer is Unavailable.

        Returns at most `seconds` after the question was sent.
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
        """Cancel the question under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
