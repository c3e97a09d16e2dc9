"""Open recordings that no recorder is attached to: what the catalog, the store and a journal still have of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from vault.errors import NotFound, Shredded
from vault.model import NodeId, Recording, RecordingId, RecordingState
from vault.ports.catalog import Catalog
from vault.ports.journal import Journal, ReplayedRecording
from vault.ports.keys import Keyring
from vault.ports.time import Clock
from vault.services.sessions import IngestSession

logger = logging.getLogger(__name__)


class TakeUp:
    """Makes sessions of open rows; whoever asks adopts them."""

    def __init__(self, *, catalog: Catalog, keyring: Keyring, journal: Journal, clock: Clock) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._journal = journal
        self._clock = clock

    async def own(self) -> AsyncIterator[IngestSession]:
        """Replay the journal and yield a session for each of this node's open rows.

        Journal bytes of a recording that the catalog does not know, or knows as another node's, stay on disk untouched
        and are logged.
        """
        found_now = await self._journal.replay(self._keyring.derive, skip=lambda _: False)
        replayed = {found.opening.recording: found for found in found_now}
        rows = {row.id: row for row in await self._catalog.open_recordings(node=self._journal.node)}
        for identifier, found in replayed.items():
            if identifier not in rows:
                await self._let_go(RecordingId(identifier), found)
        for row in rows.values():
            session = await self.session(row, replayed.get(row.id))
            if session is not None:
                yield session

    async def _let_go(self, identifier: RecordingId, found: ReplayedRecording) -> None:
        try:
            row = await self._catalog.recording(identifier)
        except NotFound:
            row = None
        if row is not None and row.state is not RecordingState.OPEN:
            found.entry.close()  # finished before the crash: everything is stored
            return
        logger.error(
            "the journal holds a recording that the catalog does not know as this node's; it is kept",
            extra={"fields": {"recording": identifier}},
        )

    async def abandoned(self, node: NodeId) -> AsyncIterator[IngestSession]:
        """Yield a session, ended as truncated, for each open row of a node whose journal is lost."""
        for row in await self._catalog.open_recordings(node=node):
            session = await self.session(row, None)
            if session is not None:
                session.ended = session.ending = "truncated:node_lost"
                yield session

    async def session(self, row: Recording, found: ReplayedRecording | None) -> IngestSession | None:
        """Return what is stored of an open row and what the journal has of it; None if its key is gone."""
        try:
            key = self._keyring.derive(row.audio)
        except Shredded:
            logger.error("an open recording has no key", extra={"fields": {"recording": row.id}})  # noqa: TRY400
            return None
        segments = [ref for ref in await self._catalog.segments(row.id) if ref.index >= 0]
        session = IngestSession(
            recording=row,
            key=key,
            segments=segments,
            stored=max((ref.offset + ref.length for ref in segments), default=0),
            recorded_segments=len(segments),
            digest=None,
            detached_at=self._clock.monotonic(),
        )
        session.rejoin(found)
        return session
