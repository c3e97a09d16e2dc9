"""Works on many items, a few at a time, and ends in order when it is interrupted or the vault is away."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import typer

from cli.output import Output
from vault.errors import Truncated, Unavailable, UploadStalled, VaultError

Thing = TypeVar("Thing")
Answer = TypeVar("Answer")
MOST_AT_ONCE: Final = 32
_AWAY: Final = 5
"""After this many items in a row that are Unavailable, the work ends."""
_BROKEN_OFF: Final = 2
_PATIENCE: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Pauses in seconds between attempts while the vault is unavailable."""


class ParallelWork:
    """Handles items, `parallel` at a time. `error` is the failure that ended the work early."""

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._stopped = False
        self._in_a_row = 0
        self.error: VaultError | None = None

    async def run(self, things: Iterable[Thing], handle: Callable[[Thing], Awaitable[None]]) -> None:
        """Handle each item once. After a VaultError of `handle`, items under way are finished and no more are begun.

        Unavailable may concern one item only, such as a call on another node. The others are then handled, unless so
        many in a row are Unavailable that the vault must be away.
        """
        waiting = iter(things)

        async def take() -> None:
            for thing in waiting:
                if self._stopped:
                    return
                try:
                    await handle(thing)
                    self._in_a_row = 0
                except VaultError as error:
                    self.error = self.error or error
                    self._in_a_row += 1
                    self._stopped |= not isinstance(error, Unavailable) or self._in_a_row >= _AWAY

        with self._interruptible():
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._parallel):
                    tasks.create_task(take())

    def finish(self, out: Output, not_tried: int) -> None:
        """Raise the error that ended the work early, if there is one."""
        words = f"{not_tried} files were not tried: run it again, it goes on where it was"
        if self.error is not None:
            self.error.hint = words
            raise self.error
        if not_tried:
            out.note(f"interrupted; {words}")
            raise typer.Abort

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Begin nothing more after the first Ctrl-C; the second one cancels what is under way."""
        if threading.current_thread() is not threading.main_thread():
            yield  # outside the main thread signals cannot be handled
            return
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self._stopped = True
            loop.remove_signal_handler(signal.SIGINT)

        loop.add_signal_handler(signal.SIGINT, stop)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)


async def with_retries(attempt: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return an attempt's result, repeated while the vault is unavailable; Unavailable after about a minute.

    An answer that breaks off is requested only twice more: it may do so at bytes that fail verification.
    """
    for number, pause in enumerate(_PATIENCE):
        try:
            return await attempt()
        except Truncated:
            if number >= _BROKEN_OFF:
                raise
        except (Unavailable, UploadStalled):
            pass
        await asyncio.sleep(pause)
    return await attempt()
