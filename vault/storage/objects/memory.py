"""The object store in memory: for tests, demonstrations and vaults that must leave nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace

from vault.errors import NotFound, VaultError
from vault.model import Finding
from vault.ports.objects import Deletion, ObjectInfo, ObjectMeta
from vault.storage.objects.names import check_meta, check_name, check_places, check_prefix, check_range


class MemoryObjectStore:
    """An ObjectStore whose objects live as long as this instance, even after `close`."""

    kind: str = "memory"

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, ObjectMeta]] = {}

    async def put(self, name: str, chunks: Sequence[bytes | memoryview], *, meta: ObjectMeta) -> ObjectInfo:
        """Keep a copy of the bytes; see ObjectStore.put."""
        data = b"".join(chunks)
        self._objects[check_name(name)] = (data, check_meta(meta))
        return ObjectInfo(name=name, size=len(data), meta=meta)

    async def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return a range; see ObjectStore.get."""
        check_range(start, length)
        data, _ = self._found(name)
        return data[start : None if length is None else start + length]

    async def stat(self, name: str) -> ObjectInfo:
        """Describe the object; see ObjectStore.stat."""
        data, meta = self._found(name)
        return ObjectInfo(name=name, size=len(data), meta=meta)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield what exists when the listing starts, without objects deleted before their turn."""
        check_prefix(prefix)
        for name in sorted(name for name in self._objects if name.startswith(prefix)):
            if name in self._objects:
                yield await self.stat(name)

    async def set_held(self, name: str, *, held: bool) -> None:
        """Record the hold state; see ObjectStore.set_held."""
        data, meta = self._found(name)
        self._objects[name] = (data, replace(meta, held=held))

    async def delete(self, name: str) -> Deletion:
        """Remove the object; there are no versions and no locks."""
        gone = self._objects.pop(check_name(name), None)
        return Deletion(name=name, versions_deleted=int(gone is not None), absent=name not in self._objects)

    async def delete_below(
        self, places: Mapping[str, Collection[str]]
    ) -> Mapping[str, Sequence[Deletion] | VaultError]:
        """Remove what lies there; see ObjectStore.delete_below."""
        return {
            place: [await self.delete(name) for name in sorted({*known, *filter(_below(place), self._objects)})]
            for place, known in check_places(places).items()
        }

    async def still_there(self) -> None:
        """Do nothing: memory cannot move."""

    async def check(self) -> Sequence[Finding]:
        """Warn that objects end with the process."""
        return (
            Finding(
                level="warning",
                subject="objects",
                message=f"{len(self._objects)} objects are in memory and end with this process",
                hint='set objects.kind = "filesystem" or "s3" for anything but a trial',
            ),
        )

    async def close(self) -> None:
        """Do nothing; objects stay readable."""

    def _found(self, name: str) -> tuple[bytes, ObjectMeta]:
        try:
            return self._objects[check_name(name)]
        except KeyError:
            raise NotFound(f"there is no object {name}") from None


def _below(place: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(place)
