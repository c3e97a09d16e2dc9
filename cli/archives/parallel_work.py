"""Works through many things, a few at a time, to an orderly end when it is interrupted or the vault is away."""

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
"""So many things that are Unavailable, with none between that is not, end the work."""
_BROKEN_OFF: Final = 2
_PATIENCE: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Pauses between attempts while the vault cannot do what it is asked."""


class ParallelWork:
    """Handles things, `parallel` at a time. `error` is a failure because of which not all was done."""

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._stopped = False
        self._in_a_row = 0
        self.error: VaultError | None = None

    async def run(self, things: Iterable[Thing], handle: Callable[[Thing], Awaitable[None]]) -> None:
        """Handle each thing once. After a VaultError of `handle` what is under way ends, and nothing more is begun.

        What is Unavailable may be so for one thing alone, a call of another node for example: then the others are
        handled, unless so many of them meet the same that the vault must be away.
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
        """Raise what ended the work, if anything did before all was done."""
        words = f"{not_tried} files were not tried: run it again, it goes on where it was"
        if self.error is not None:
            self.error.hint = words
            raise self.error
        if not_tried:
            out.note(f"interrupted; {words}")
            raise typer.Abort

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Begin nothing more after the first Ctrl-C; the second one breaks off what is under way."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are another's
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
    """Return what an attempt returns, as soon as the vault can do it; Unavailable if it cannot for a minute.

    An answer that breaks off is asked for only twice more: it may do so at bytes that fail verification.
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
