"""The nodes of one vault: who they are, and the locks they share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.ids import NodeId


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A journal and the process that serves it, as the catalog knows them; `name` tells people where it is."""

    id: NodeId
    name: str
    started_at: datetime
    seen_at: datetime
    unstored_bytes: int = 0
    open_recordings: int = 0
    """Counted by the catalog; not stored."""


class NodeRows(Protocol):
    """The catalog rows of nodes."""

    async def register_node(self, node: Node) -> None:
        """Insert or replace a node by id. The first node ever registered gets the open recordings without a node."""

    async def beat_node(self, node: NodeId, *, at: datetime, unstored_bytes: int) -> None:
        """Record that the node is running; NotFound if it is not registered."""

    async def forget_node(self, node: NodeId) -> None:
        """Remove a node; an absent one is ignored."""

    async def nodes(self) -> Sequence[Node]:
        """Return all nodes in order of id, with the number of their open recordings."""
