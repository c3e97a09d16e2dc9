"""Who may continue a recording: its own token, or another one that does not shorten its call's retention.

A call key is not secret, so any recorder can begin a call under a name that another is about to use. A recording has
the dates of the one that began it. Another token therefore joins it only if it is kept as long as that token's own
statement would require; else its call becomes a recording of its own, under the next name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from vault.errors import IntegrityError
from vault.ids import TokenId
from vault.media.heads import fits_declaration
from vault.model import CallFacts, Media, Principal, Recording
from vault.ports.keys import Keyring
from vault.ports.time import Clock
from vault.protocol.facts.parties import read_parties
from vault.protocol.facts.stated import contradict
from vault.retention.guards import effective_now
from vault.retention.periods import Period
from vault.retention.policy import Lifetime, joined_at, lifetime
from vault.services.ingest.sessions import BEGUN_BY, CallStart, IngestSession, stated
from vault.services.recordings.search import facts_of
from vault.services.tenants.tenants import Tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class Joiner:
    """What a recorder states about its call under a call key."""

    actor: Principal
    facts: CallFacts = field(repr=False)
    started_at: datetime | None
    media: Media | None = None
    """None while the format is not known."""
    keep_until: datetime | None = None

    @classmethod
    def of(cls, call: CallStart, actor: Principal) -> Joiner:
        """Return the joiner that would begin a call."""
        return cls(
            actor=actor, facts=call.facts, started_at=call.started_at, media=call.media, keep_until=call.keep_until
        )


class Joining:
    """Computes how long a call is kept for what is stated of it, and who may join it."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        tenants: Tenants,
        clock: Clock,
        floor: Period,
        backdating: timedelta,
    ) -> None:
        self._keyring = keyring
        self._tenants = tenants
        self._clock = clock
        self._floor = floor
        self._backdating = backdating

    def now(self) -> datetime:
        """Return the time, never before the last sweep: a clock that stepped back must not shorten a retention."""
        return effective_now(self._clock.now(), self._keyring.last_sweep_at)

    def life(self, call: Joiner, retention: Period, *, receipt: datetime) -> Lifetime:
        """Return how long a call received at `receipt` is kept; Invalid beyond the calendar."""
        return lifetime(
            call.started_at,
            receipt=receipt,
            after=retention.after,
            floor=self._floor.after,
            backdating=None if imports(call.actor, self.now()) else self._backdating,
            at_least=call.keep_until,
        )

    async def may(self, call: Joiner, session: IngestSession) -> bool:
        """Tell whether a call may continue a recording, or repeat it if that has ended."""
        row = session.recording
        if session.ended is not None:
            return await self._may(replace(call, media=None), row, session.begun_by, receipt=row.created_at)
        return await self._may(call, row, session.begun_by, receipt=joined_at(row.created_at, self.now()))

    async def same(self, call: Joiner, row: Recording) -> bool:
        """Tell whether a call may repeat a finished recording, whatever its format."""
        try:
            facts = facts_of(self._keyring, row)
        except IntegrityError:
            return False
        by = None if facts is None else facts.extra.get(BEGUN_BY)
        begun_by = None if by is None else TokenId(by)
        return await self._may(replace(call, media=None), row, begun_by, receipt=row.created_at)

    async def _may(self, call: Joiner, row: Recording, begun_by: TokenId | None, *, receipt: datetime) -> bool:
        if call.keep_until is not None and call.keep_until > row.retain_until:
            return False  # a date is not moved
        if call.media is not None and not fits_declaration(row.media, call.media):
            return False
        if begun_by == call.actor.token_id:
            return True
        if call.actor.expired:
            return False
        life = self.life(call, await self._tenants.retention(row.tenant), receipt=receipt)
        return life.retain_until <= row.retain_until and not await self._contradicted(call.facts, row)

    async def _contradicted(self, facts: CallFacts, row: Recording) -> bool:
        try:
            known = facts_of(self._keyring, row)
        except IntegrityError:
            return True
        said = stated(facts)
        if known is None or (said.caller, said.called, said.direction) == (None, None, None):
            return False
        return contradict(known, read_parties(said, await self._tenants.region(row.tenant)))


def imports(actor: Principal, now: datetime) -> bool:
    """Tell whether the actor's recordings have their true dates, however long ago."""
    return actor.imports_until is not None and now < actor.imports_until
