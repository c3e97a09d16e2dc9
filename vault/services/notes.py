"""What happens to a call beside its audio: pauses, gaps, keys pressed, documents about it."""

from __future__ import annotations

from vault.protocol.events import Dtmf, Facts
from vault.services.sessions import IngestSession


class Notes:
    """Keeps what is to be known of an open recording beside its audio; each is durable when the call returns."""

    async def gap(self, session: IngestSession, missing_ms: int) -> None:
        """At the present end of the audio, so many milliseconds of the call are missing."""

    async def rejoined(self, session: IngestSession) -> None:
        """A live recorder came back: note the wall-clock time since its last audio as a gap."""

    async def pause(self, session: IngestSession) -> None:
        """From now on nothing of the call is kept, until `resume`; repeating it changes nothing."""

    async def resume(self, session: IngestSession) -> None:
        """From now on the call is kept again; repeating it changes nothing."""

    async def dtmf(self, session: IngestSession, event: Dtmf) -> None:
        """A key was pressed: kept only if the tenant asks for it."""

    async def facts(self, session: IngestSession, event: Facts) -> None:
        """More is known about the call: seal it with the facts of its row."""
