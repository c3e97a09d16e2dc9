"""Open recordings that no recorder is attached to: what the catalog, the store and a journal still have of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import timedelta

from vault.errors import NotFound, Shredded
from vault.ids import NodeId, RecordingId
from vault.model import Recording, RecordingState
from vault.ports.catalog import Catalog
from vault.ports.journal import Journal, ReplayedRecording
from vault.ports.keys import Keyring
from vault.ports.time import Clock, Entropy
from vault.services.coordinates import Coordinates
from vault.services.notes import take_up
from vault.services.search import CALL_KEY, extra_of
from vault.services.sessions import IngestSession
from vault.services.stubs import row_from_journal

logger = logging.getLogger(__name__)


class TakeUp:
    """Makes sessions of open rows; whoever asks adopts them."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        keyring: Keyring,
        journal: Journal,
        coordinates: Coordinates,
        clock: Clock,
        entropy: Entropy,
        pause_max: timedelta,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._journal = journal
        self._coordinates = coordinates
        self._clock = clock
        self._entropy = entropy
        self._pause_max = pause_max

    async def own(self) -> AsyncIterator[IngestSession]:
        """Replay the journal and yield a session for each of this node's open rows.

        A recording that the catalog does not know gets a row again: the catalog is older than the journal. Journal
        bytes of one that it knows as another node's stay on disk untouched and are logged.
        """
        found_now = await self._journal.replay(self._keyring.derive, skip=lambda _: False)
        replayed = {found.opening.recording: found for found in found_now}
        rows = {row.id: row for row in await self._catalog.open_recordings(node=self._journal.node)}
        for identifier, found in replayed.items():
            if identifier not in rows:
                row = await self._unknown(RecordingId(identifier), found)
                if row is not None:
                    rows[row.id] = row
        for row in rows.values():
            session = await self.session(row, replayed.get(row.id))
            if session is not None:
                session.lossy |= self._journal.damaged
                yield session

    async def _unknown(self, identifier: RecordingId, found: ReplayedRecording) -> Recording | None:
        """Return a new row for a recording without one; let go of what is finished, keep what is another node's."""
        try:
            row = await self._catalog.recording(identifier)
        except NotFound:
            return await row_from_journal(
                found,
                catalog=self._catalog,
                coordinates=self._coordinates,
                keyring=self._keyring,
                node=self._journal.node,
                clock=self._clock,
                entropy=self._entropy,
            )
        if row.state is RecordingState.OPEN:
            logger.error(
                "the journal holds a recording that the catalog knows as another node's; it is kept",
                extra={"fields": {"recording": identifier}},
            )
        else:
            found.entry.close()  # finished before the crash: everything is stored
        return None

    async def abandoned(self, node: NodeId) -> AsyncIterator[IngestSession]:
        """Yield a session, ended as truncated, for each open row of a node whose journal is lost."""
        for row in await self._catalog.open_recordings(node=node):
            session = await self.session(row, None)
            if session is not None:
                session.ended = session.ending = "truncated:node_lost"
                session.lossy = True
                yield session

    async def session(self, row: Recording, found: ReplayedRecording | None) -> IngestSession | None:
        """Return what is stored of an open row, what the journal has of it, its notes; None if its key is gone."""
        try:
            key = self._keyring.derive(row.audio)
        except Shredded:
            logger.error("an open recording has no key", extra={"fields": {"recording": row.id}})  # noqa: TRY400
            return None
        segments = [ref for ref in await self._catalog.segments(row.id) if ref.index >= 0]
        extra = extra_of(self._keyring, row)
        session = IngestSession(
            recording=row,
            key=key,
            call_key=extra.get(CALL_KEY),
            segments=segments,
            stored=max((ref.offset + ref.length for ref in segments), default=0),
            recorded_segments=len(segments),
            digest=None,
            detached_at=self._clock.monotonic(),
        )
        session.recall(extra)
        session.rejoin(found)
        await take_up(self._catalog, session, clock=self._clock, pause_max=self._pause_max)
        return session
