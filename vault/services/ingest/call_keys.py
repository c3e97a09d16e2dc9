"""What is recorded under a recorder's call key and those that followed it, and which token began what is open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from vault.errors import Invalid, NotFound
from vault.ids import RecordingId, TenantId, TokenId, call_keys, call_name
from vault.model import Recording, RecordingState
from vault.ports.keys import Keyring
from vault.ports.recordings import RecordingLookup
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.sessions import BEGUN_BY, IngestSession
from vault.services.recordings.search import Search, extra_of

# -- call keys ----------------------------------------------------------------------------------------------------

_MOST_REMEMBERED: Final = 10_000
_STRIDE: Final = 4


class CallKeys:
    """Finds what has a call key, and the newest key of a call, which are used in their order.

    Where the newest was last found is remembered and only where the next look begins: what is returned was seen to be
    taken, and its next few successors to be free. Where nothing is remembered, the steps double and are then halved. A
    recording that ended empty leaves a free name before taken ones: fewer than `_STRIDE` in a row hide nothing. Names
    that went with their month's metadata may leave more; each free one is as good as another.
    """

    def __init__(self, *, ingest: Ingest, search: Search) -> None:
        self._ingest = ingest
        self._search = search
        self._remembered: OrderedDict[tuple[TenantId, str], int] = OrderedDict()

    async def resolve(self, tenant: TenantId, call_key: str, *, here: bool = False) -> IngestSession | Recording | None:
        """Return what has this very call key: the session of this process, else the recording; None if it is free.

        With `here` Unavailable for a recording that is open on another node, or only now being taken up on this one.
        """
        session = self._ingest.live_call(tenant, call_key)
        if session is not None:
            return session
        row = await self._search.call(tenant, call_key)
        if here and row is not None and row.state is RecordingState.OPEN:
            self._ingest.require_here(row)
        return row

    async def next_free(self, tenant: TenantId, key: str) -> str:
        """Return the first of a call's keys behind all that have a recording; Invalid as `newest`."""
        return call_name(key, await self.newest(tenant, key) + 1)

    async def newest(self, tenant: TenantId, key: str) -> int:
        """Return the number of the newest name of a call that has a recording; 0 if none has, Invalid for no key."""
        place = (tenant, key)
        low = max([self._remembered.get(place, 0), *self._ingest.live_numbers(tenant, key)])
        if low and not await self._taken_from(tenant, key, low):
            low = 0
        step = 1
        while await self._taken_from(tenant, key, low + step):
            low += step
            step *= 2
        free = low + step
        while free - low > 1:
            middle = (low + free) // 2
            if await self._taken_from(tenant, key, middle):
                low = middle
            else:
                free = middle
        self._remember(place, low)
        return low

    async def to_try(self, tenant: TenantId, key: str) -> AsyncIterator[str]:
        """Yield the names under which a call may go on or begin: those with a session, the newest, and free ones.

        The catalog is asked only after the first ones: a broken connection comes back even while it cannot answer.
        """
        for name in self._ingest.live_calls(tenant, key):
            yield name
        for name in call_keys(key, first=await self.newest(tenant, key)):
            yield name

    async def _taken_from(self, tenant: TenantId, key: str, number: int) -> bool:
        """Return whether there is a recording of this name or of one of the next few."""
        last = number + _STRIDE - 1
        if any(number <= live <= last for live in self._ingest.live_numbers(tenant, key)):
            return True
        names = [call_name(key, number)]
        with suppress(Invalid):  # a long key has no further names
            for each in range(number + 1, last + 1):
                names.append(call_name(key, each))  # noqa: PERF401  # keeps the names before the one that is too long
        return await self._search.any_call(tenant, names)

    def _remember(self, place: tuple[TenantId, str], number: int) -> None:
        self._remembered.pop(place, None)
        if number:
            self._remembered[place] = number
        if len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)


# -- begun --------------------------------------------------------------------------------------------------------


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
