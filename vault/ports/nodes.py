"""Journals, and who serves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.ids import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A journal and whoever serves it, as the catalog knows it; `name` says where, for people."""

    id: NodeId
    name: str
    started_at: datetime
    seen_at: datetime
    unstored_bytes: int = 0
    open_recordings: int = 0
    """Counted by the catalog; not stored."""


class NodeRows(Protocol):
    """Journals and whoever serves them."""

    async def register_node(self, node: Node) -> None:
        """Insert or replace by id. The first node ever registered takes the open recordings that have none."""

    async def beat_node(self, node: NodeId, *, at: datetime, unstored_bytes: int) -> None:
        """Note that the node lives; NotFound."""

    async def forget_node(self, node: NodeId) -> None:
        """Remove a node. Repeating is harmless."""

    async def nodes(self) -> Sequence[Node]:
        """Return all, by id, each with its open recordings counted."""
