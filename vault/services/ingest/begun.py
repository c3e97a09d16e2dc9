"""Which token began what is open: an expired token may finish that, and begins nothing new."""

from __future__ import annotations

from vault.errors import NotFound
from vault.ids import RecordingId, TenantId, TokenId
from vault.model import Recording, RecordingState
from vault.ports.keys import Keyring
from vault.ports.recordings import RecordingLookup
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.sessions import BEGUN_BY
from vault.services.recordings.search import Search, extra_of


class Begun:
    """Asks the open recordings of this process, and for those of other nodes their rows."""

    def __init__(self, *, catalog: RecordingLookup, ingest: Ingest, keyring: Keyring, search: Search) -> None:
        self._catalog = catalog
        self._ingest = ingest
        self._keyring = keyring
        self._search = search

    async def here(self, token: TokenId) -> bool:
        """Tell whether the token began a recording that is open in this process."""
        return self._ingest.has_begun(token)

    async def upload(self, token: TokenId, identifier: RecordingId) -> bool:
        """Tell whether the token began this recording, and it is open."""
        session = self._ingest.live(identifier)
        if session is not None:
            return session.begun_by == token
        try:
            return self._is_open(await self._catalog.recording(identifier), token)
        except NotFound:
            return False

    async def call(self, token: TokenId, tenant: TenantId, call_key: str) -> bool:
        """Tell whether the token began a recording that is open under a recorder's call key.

        Others may have too: an expired token joins nothing that it did not begin.
        """
        if sessions := self._ingest.live_calls(tenant, call_key).values():
            return any(session.begun_by == token for session in sessions)
        row = await self._search.call(tenant, call_key)
        return row is not None and self._is_open(row, token)

    def _is_open(self, row: Recording, token: TokenId) -> bool:
        return row.state is RecordingState.OPEN and extra_of(self._keyring, row).get(BEGUN_BY) == token
