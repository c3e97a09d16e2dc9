"""Which of the call keys that the recordings of one call have is the newest, found without asking for every one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from vault.errors import Invalid
from vault.ids import TenantId, call_keys, call_name
from vault.services.ingest.ingest import Ingest
from vault.services.recordings.search import Search

_MOST_REMEMBERED: Final = 10_000
_STRIDE: Final = 4


class CallNames:
    """Finds the newest of `key`, `key~2`, `key~3` and so on, which are used in this order.

    Where it was last found is remembered and only where the next look begins: what is returned was seen to be taken,
    and its next few successors to be free. Where nothing is remembered, the steps double and are then halved. A
    recording that ended empty leaves a free name before taken ones: fewer than `_STRIDE` in a row hide nothing. Names
    that went with their month's metadata may leave more; each free one is as good as another.
    """

    def __init__(self, *, ingest: Ingest, search: Search) -> None:
        self._ingest = ingest
        self._search = search
        self._remembered: OrderedDict[tuple[TenantId, str], int] = OrderedDict()

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
        for name in self._ingest.live_names(tenant, key):
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
