"""An object store that refuses, dawdles or lies on demand, over a real one."""

import asyncio
from enum import StrEnum

from vault.errors import IntegrityError, Unavailable
from vault.wiring import open as opening
from vault.wiring.adapters import open_store


class Fault(StrEnum):
    NONE = "none"
    LOST = "lost"
    """Refuses without having stored anything."""
    LANDED = "landed"
    """Stores, and then says that it could not."""
    LYING = "lying"
    """Stores half of the object and reports another length than was put."""
    SLOW = "slow"


class FaultyStore:
    """Delegates to the real store; `fault` holds for every operation, for the first `times` puts if that is set."""

    def __init__(self, store):
        self._store = store
        self.fault = Fault.NONE
        self.times = None
        self.refused = 0
        self.delay = 0.0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def put(self, name, chunks, *, meta):
        fault = self._next()
        match fault:
            case Fault.SLOW:
                await asyncio.sleep(self.delay)
            case Fault.LOST:
                raise Unavailable("the store does not answer")
            case Fault.LANDED:
                await self._store.put(name, chunks, meta=meta)
                raise Unavailable("the store did not answer")
            case Fault.LYING:
                whole = b"".join(bytes(chunk) for chunk in chunks)
                await self._store.put(name, [whole[: len(whole) // 2]], meta=meta)
                raise IntegrityError(f"{len(whole)} bytes were put and {len(whole) // 2} are there")
        return await self._store.put(name, chunks, meta=meta)

    async def get(self, name, *, start=0, length=None):
        if self.fault in (Fault.LOST, Fault.LANDED) and self.times is None:
            raise Unavailable("the store does not answer")
        return await self._store.get(name, start=start, length=length)

    def _next(self):
        if self.times == 0:
            self.fault, self.times = Fault.NONE, None
        elif self.times is not None:
            self.times -= 1
        self.refused += self.fault is not Fault.NONE
        return self.fault


def install(monkeypatch):
    """Make every vault opened from here on use a faulty store; return a list that receives them."""
    opened = []

    async def faulty(config):
        opened.append(FaultyStore(await open_store(config)))
        return opened[-1]

    monkeypatch.setattr(opening, "open_store", faulty)
    return opened
