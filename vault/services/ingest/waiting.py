"""Open uploads that wait for their recorder, by tenant, and which of them to end first."""

from __future__ import annotations

from typing import Final

from vault.ids import TenantId
from vault.ports.time import Clock
from vault.services.ingest.sessions import IngestSession

_UNHEARD_SECONDS: Final = 5.0
"""An upload without a request for fewer seconds than this is still being sent, with a pause between requests."""


class Waiting:
    """Sessions without a request, in the order in which their requests ended; looking takes constant time."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._empty: dict[TenantId, dict[IngestSession, float]] = {}
        self._begun: dict[TenantId, dict[IngestSession, float]] = {}

    def add(self, session: IngestSession) -> None:
        """Add a session whose request has ended: it waits unless another request sends it or it has ended."""
        if session.uploads or session.arriving or session.leaving:
            return
        # A client of an upload in parts does not begin another one for the first part that is refused.
        left = self._empty if session.empty and session.owner is None else self._begun
        left.setdefault(session.recording.tenant, {})[session] = self._clock.monotonic()

    def discard(self, session: IngestSession) -> None:
        """Remove a session that is sent again, or ends; a second call changes nothing."""
        tenant = session.recording.tenant
        for left in (self._empty, self._begun):
            if tenant in left:
                left[tenant].pop(session, None)
                if not left[tenant]:
                    del left[tenant]

    def least(self, tenant: TenantId) -> IngestSession | None:
        """Return the upload of the tenant to end first: an empty one, else the one left longest ago."""
        for left, patience in ((self._empty, 0.0), (self._begun, _UNHEARD_SECONDS)):
            for session, since in left.get(tenant, {}).items():
                if since <= self._clock.monotonic() - patience:
                    return session
                break
        return None
