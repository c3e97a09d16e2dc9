"""An object store inside another: every name gets a prefix, such as the folder of a bucket."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from vault.errors import VaultError
from vault.model import Finding
from vault.ports.objects import Deletion, ObjectInfo, ObjectMeta, ObjectStore
from vault.storage.objects.names import check_places


class PrefixedObjectStore:
    """Keeps the promises of the store that it wraps; `prefix` is empty or ends with "/"."""

    def __init__(self, inner: ObjectStore, prefix: str) -> None:
        self._inner = inner
        self._prefix = prefix
        self.kind = inner.kind

    async def put(self, name: str, chunks: Sequence[bytes | memoryview], *, meta: ObjectMeta) -> ObjectInfo:
        """Store under the prefixed name; see ObjectStore.put."""
        return self._outer(await self._inner.put(self._prefix + name, chunks, meta=meta))

    async def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return a range; see ObjectStore.get."""
        return await self._inner.get(self._prefix + name, start=start, length=length)

    async def stat(self, name: str) -> ObjectInfo:
        """Describe the object; see ObjectStore.stat."""
        return self._outer(await self._inner.stat(self._prefix + name))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield the objects under the prefix; see ObjectStore.list."""
        async for info in self._inner.list(self._prefix + prefix):
            yield self._outer(info)

    async def set_held(self, name: str, *, held: bool) -> None:
        """Record the hold state; see ObjectStore.set_held."""
        await self._inner.set_held(self._prefix + name, held=held)

    async def delete(self, name: str) -> Deletion:
        """Remove every version; see ObjectStore.delete."""
        return (await self._inner.delete(self._prefix + name))._replace(name=name)

    async def delete_below(
        self, places: Mapping[str, Collection[str]]
    ) -> Mapping[str, Sequence[Deletion] | VaultError]:
        """Delete below the prefixed prefixes; see ObjectStore.delete_below."""
        inner = {
            self._prefix + place: [self._prefix + name for name in names]
            for place, names in check_places(places).items()
        }
        return {
            place.removeprefix(self._prefix): outcome
            if isinstance(outcome, VaultError)
            else [each._replace(name=each.name.removeprefix(self._prefix)) for each in outcome]
            for place, outcome in (await self._inner.delete_below(inner)).items()
        }

    async def still_there(self) -> None:
        """Ask the wrapped store."""
        await self._inner.still_there()

    async def check(self) -> Sequence[Finding]:
        """Return the wrapped store's findings."""
        return await self._inner.check()

    async def close(self) -> None:
        """Close the wrapped store."""
        await self._inner.close()

    def _outer(self, info: ObjectInfo) -> ObjectInfo:
        return dataclasses.replace(info, name=info.name.removeprefix(self._prefix))
