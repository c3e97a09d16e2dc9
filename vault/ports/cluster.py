"""What the nodes of one vault agree on: who alone may do something now."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Held(Protocol):
    """A lock while it is held."""

    def check(self) -> None:
        """Raise Unavailable unless the lock is still this holder's by its own clock; call it before what is final.

        A holder that was stopped, or cut off from where the lock lives, has lost it by the time it goes on.
        """


class ClusterLocks(Protocol):
    """Named locks of one vault: across tasks, processes and nodes at most one holds a name."""

    def hold(self, name: str) -> AbstractAsyncContextManager[Held]:
        """Wait for `name` and hold it inside the context.

        Unavailable if it stays taken for longer than a bound, or if nobody can say who has it. A holder that loses it
        is cancelled, as at a deadline, and the context then raises Unavailable. A holder that dies frees it.
        """

    def try_hold(self, name: str) -> AbstractAsyncContextManager[Held | None]:
        """As `hold` without waiting: None, and nothing held, if another has it."""
