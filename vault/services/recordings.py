"""Shows recordings: facts, retention, and why they are kept or gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vault.ids import RecordingId
from vault.model import CallFacts, Hold, Principal, Recording, RecordingState
from vault.ports.catalog import Catalog, RecordingQuery
from vault.ports.keys import Keyring
from vault.ports.time import Clock
from vault.retention.decide import explain
from vault.services.audit import event
from vault.services.ingest import Ingest
from vault.services.search import Search, Wanted, facts_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingView:
    """A recording as people see it; `facts` is None where the key is gone or the role may not see them."""

    recording: Recording
    length: int
    live: bool
    facts: CallFacts | None
    holds: Sequence[Hold]


class Recordings:
    """Look-ups over the catalog, logged."""

    def __init__(self, *, catalog: Catalog, keyring: Keyring, ingest: Ingest, search: Search, clock: Clock) -> None:
        self._catalog = catalog
        self._search = search
        self._keyring = keyring
        self._ingest = ingest
        self._clock = clock

    async def list(self, query: RecordingQuery, *, actor: Principal) -> Sequence[RecordingView]:
        """Return one page, without personal facts."""
        await self._catalog.append_audit([event("access.search", actor, tenant=query.tenant)])
        return [await self._view(row, facts=False, holds=()) for row in await self._catalog.recordings(query)]

    async def search(
        self, query: RecordingQuery, wanted: Wanted, *, purpose: str, actor: Principal
    ) -> Sequence[RecordingView]:
        """Return one page of the calls that match sealed facts; the entry names the fields, never what they held."""
        entry = event(
            "access.search", actor, tenant=query.tenant, purpose=purpose, detail={"by": ", ".join(wanted.fields)}
        )
        await self._catalog.append_audit([entry])
        return [await self._view(row, facts=False, holds=()) for row in await self._search.page(query, wanted)]

    async def find(self, identifier: RecordingId) -> Recording:
        """Return the row for an authorisation check; not an access."""
        return await self._catalog.recording(identifier)

    async def show(self, recording: Recording, *, actor: Principal, facts: bool) -> RecordingView:
        """Return what is known about one recording, with `facts` the personal ones too."""
        await self._catalog.append_audit(
            [event("access.metadata", actor, tenant=recording.tenant, target=recording.id)]
        )
        return await self._view(recording, facts=facts, holds=await self._catalog.holds_on(recording.id))

    async def _view(self, row: Recording, *, facts: bool, holds: Sequence[Hold]) -> RecordingView:
        session = self._ingest.live(row.id)
        finished = row.state in (RecordingState.SEALED, RecordingState.TRUNCATED)
        if finished and not self._keyring.derivable(row.audio):
            # Its key is gone and its certificate not written yet.
            row = dataclasses.replace(row, state=RecordingState.SHREDDING)
        return RecordingView(
            recording=row,
            length=session.durable if session is not None else row.stored_bytes,
            live=session is not None and session.ended is None,
            facts=facts_of(self._keyring, row) if facts else None,
            holds=holds,
        )

    async def why(self, recording: Recording, *, actor: Principal) -> Mapping[str, Any]:
        """Explain, rule by rule, why the recording is kept or gone."""
        view = await self.show(recording, actor=actor, facts=False)
        row = view.recording
        gone = row.state in (RecordingState.SHREDDING, RecordingState.SHREDDED)
        return {
            "recording_id": row.id,
            "state": row.state.value,
            "retain_until": row.retain_until.isoformat(),
            "key_exists": not gone and self._keyring.derivable(row.audio),
            "certificate_id": row.certificate_id,
            "rules": [line.as_json() for line in explain(row, view.holds, now=self._clock.now())],
        }
