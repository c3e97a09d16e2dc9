"""Locks that the nodes of one vault share."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Held(Protocol):
    """A lock while it is held."""

    def check(self) -> None:
        """Raise Unavailable unless the holder still has the lock by its own clock; call it before an irreversible act.

        A holder that was stopped, or cut off from the lock's store, may have lost the lock when it continues.
        """


class ClusterLocks(Protocol):
    """Named locks of one vault. Among all tasks, processes and nodes, at most one holds a name."""

    def hold(self, name: str) -> AbstractAsyncContextManager[Held]:
        """Wait for the lock `name` and hold it inside the context.

        Unavailable if another holds it for longer than a bound, or if its holder cannot be determined. A holder that
        loses it is cancelled, and the context raises Unavailable. The lock of a holder that dies becomes free.
        """

    def try_hold(self, name: str) -> AbstractAsyncContextManager[Held | None]:
        """Hold the lock like `hold`, without waiting: yield None if another holds it."""
