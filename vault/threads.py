"""Blocking work off the event loop, never left running behind the caller's back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do what `run_in` does in one of the loop's own threads."""
    return await run_in(None, call, *args, **kwargs)


async def run_in(executor: Executor | None, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `call` in a thread of `executor`, with the caller's context variables, and return its result.

    A cancelled caller waits until the thread is done. Leaving earlier would release a writer's lock while a write is
    still landing, or let a put land after the delete that followed it had been verified.
    """
    run = partial(copy_context().run, call, *args, **kwargs)
    work = asyncio.get_running_loop().run_in_executor(executor, run)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not work.cancelled():
            work.exception()
        raise cancelled
    return work.result()


async def acquire(release: Callable[[_T], object], call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return what `call` acquires in a thread, such as a lock or an open file.

    A cancelled caller would not get it and could never release it, so it is released here.
    """
    acquired: list[_T] = []

    def run() -> _T:
        acquired.append(call(*args, **kwargs))
        return acquired[0]

    try:
        return await in_thread(run)
    except asyncio.CancelledError:
        for each in acquired:
            await in_thread(release, each)
        raise
