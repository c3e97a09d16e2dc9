"""This node in the catalog: its journal, when it was last seen, and how much it has not stored yet."""

from __future__ import annotations

import asyncio
import logging

from vault.errors import NotFound, Unavailable
from vault.ports.cluster import Node, NodeRows
from vault.ports.time import Clock
from vault.services.ingest.ingest import Ingest

_BEAT_SECONDS = 10.0

logger = logging.getLogger(__name__)


class Presence:
    """Tells the catalog that this node runs. It is for people: decisions use locks where there are any."""

    def __init__(self, *, catalog: NodeRows, ingest: Ingest, clock: Clock, name: str) -> None:
        self._catalog = catalog
        self._ingest = ingest
        self._clock = clock
        self._name = name
        self.seen = True
        """Whether the latest beat is in the catalog."""

    async def register(self) -> None:
        """Add this node to the catalog, before the first recording, so that no row names an unknown node."""
        now = self._clock.now()
        await self._catalog.register_node(Node(id=self._ingest.node, name=self._name, started_at=now, seen_at=now))

    async def run(self) -> None:
        """Beat until cancelled; during an outage of the catalog the node only looks absent."""
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            try:
                await self.appear()
            except Unavailable as error:
                logger.warning("the node was not seen", extra={"fields": {"reason": error.message}})

    async def appear(self) -> None:
        """Beat, registering again if this node was taken for lost; Unavailable if the catalog cannot be written."""
        try:
            try:
                await self.beat()
            except NotFound:
                logger.warning("the node was taken for lost; it appears again")
                await self.register()
        except Unavailable:
            self.seen = False
            raise
        self.seen = True

    async def beat(self) -> None:
        """Store the time, and how much is not stored yet."""
        await self._catalog.beat_node(
            self._ingest.node, at=self._clock.now(), unstored_bytes=self._ingest.unstored_bytes
        )
