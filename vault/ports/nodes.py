"""Nodes: journals and the processes that serve them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.ids import NodeId


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
