"""Finds the recordings of a call by its names, and tells which token began an open recording."""

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
from vault.services.ingest.sessions import IngestSession
from vault.services.recordings.search import BEGUN_BY, Search, extra_of

# -- call keys ----------------------------------------------------------------------------------------------------

_MOST_REMEMBERED: Final = 10_000
_STRIDE: Final = 4


class CallKeys:
    """Finds the recording under a call key, and the newest name of a call: `key`, `key~2`, `key~3` and so on.

    The names of a call are used in order. The newest one that was found is remembered, and the next search begins
    there. Without one, the search doubles its steps and then halves them. The newest name was seen to be taken, and its
    next few successors to be free. A recording that ended empty frees its name, so there may be free names before taken
    ones; fewer than `_STRIDE` in a row do not mislead the search. Shredded metadata may free more names in a row; then
    the search may return an earlier name, whose successor is free too.
    """

    def __init__(self, *, ingest: Ingest, search: Search) -> None:
        self._ingest = ingest
        self._search = search
        self._remembered: OrderedDict[tuple[TenantId, str], int] = OrderedDict()

    async def resolve(self, tenant: TenantId, call_key: str, *, here: bool = False) -> IngestSession | Recording | None:
        """Return what has exactly this call key: the session of this process, else the recording; None if it is free.

        With `here`, Unavailable for a recording that is open on another node or that this node is still resuming.
        """
        session = self._ingest.live_call(tenant, call_key)
        if session is not None:
            return session
        row = await self._search.call(tenant, call_key)
        if here and row is not None and row.state is RecordingState.OPEN:
            self._ingest.require_here(row)
        return row

    async def next_free(self, tenant: TenantId, key: str) -> str:
        """Return the name after the newest name of the call; Invalid for no call key."""
        return call_name(key, await self.newest(tenant, key) + 1)

    async def newest(self, tenant: TenantId, key: str) -> int:
        """Return the number of the call's newest name that has a recording; 0 without one. Invalid for no call key."""
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
        """Yield the names under which a call may continue or begin: those with a session, the newest, and free ones.

        The names with a session come first and need no catalog: a recorder can reconnect while it does not answer.
        """
        for name in self._ingest.live_calls(tenant, key):
            yield name
        for name in call_keys(key, first=await self.newest(tenant, key)):
            yield name

    async def _taken_from(self, tenant: TenantId, key: str, number: int) -> bool:
        """Tell whether this name or one of the next few has a recording."""
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


# -- who began an open recording ----------------------------------------------------------------------------------


class Begun:
    """Tells whether a token began an open recording, from the sessions of this process and the rows of other nodes."""

    def __init__(self, *, catalog: RecordingLookup, ingest: Ingest, keyring: Keyring, search: Search) -> None:
        self._catalog = catalog
        self._ingest = ingest
        self._keyring = keyring
        self._search = search

    async def here(self, token: TokenId) -> bool:
        """Tell whether the token began a recording that is open in this process."""
        return self._ingest.has_begun(token)

    async def upload(self, token: TokenId, identifier: RecordingId) -> bool:
        """Tell whether the token began this recording and the recording is open."""
        session = self._ingest.live(identifier)
        if session is not None:
            return session.begun_by == token
        try:
            return self._is_open(await self._catalog.recording(identifier), token)
        except NotFound:
            return False

    async def call(self, token: TokenId, tenant: TenantId, call_key: str) -> bool:
        """Tell whether the token began an open recording with this call key.

        Other tokens may have begun further ones; an expired token may continue only its own.
        """
        if sessions := self._ingest.live_calls(tenant, call_key).values():
            return any(session.begun_by == token for session in sessions)
        row = await self._search.call(tenant, call_key)
        return row is not None and self._is_open(row, token)

    def _is_open(self, row: Recording, token: TokenId) -> bool:
        return row.state is RecordingState.OPEN and extra_of(self._keyring, row).get(BEGUN_BY) == token
