"""Open uploads that wait for their recorder, by tenant: which of them would be missed least."""

from __future__ import annotations

from typing import Final

from vault.ids import TenantId
from vault.ports.time import Clock
from vault.services.ingest.sessions import IngestSession

_UNHEARD_SECONDS: Final = 5.0
"""An upload that was left less than so many seconds ago is being sent, with a pause between its requests."""


class Waiting:
    """Remembers which sessions no request sends, in the order in which they were left; each look is one step."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._empty: dict[TenantId, dict[IngestSession, float]] = {}
        self._begun: dict[TenantId, dict[IngestSession, float]] = {}

    def add(self, session: IngestSession) -> None:
        """A request has left this one: unless another sends it or it has ended, it waits from now on."""
        if session.uploads or session.arriving or session.leaving:
            return
        # A client of an upload in parts does not begin another one for the first part that is refused.
        left = self._empty if session.empty and session.owner is None else self._begun
        left.setdefault(session.recording.tenant, {})[session] = self._clock.monotonic()

    def discard(self, session: IngestSession) -> None:
        """It is sent again, or ends; telling it twice changes nothing."""
        tenant = session.recording.tenant
        for left in (self._empty, self._begun):
            if tenant in left:
                left[tenant].pop(session, None)
                if not left[tenant]:
                    del left[tenant]

    def least(self, tenant: TenantId) -> IngestSession | None:
        """Return an upload of the tenant that would be missed least: an empty one, else the one left longest ago."""
        for left, patience in ((self._empty, 0.0), (self._begun, _UNHEARD_SECONDS)):
            for session, since in left.get(tenant, {}).items():
                if since <= self._clock.monotonic() - patience:
                    return session
                break
        return None
