"""The object store on a local file system: durable when a put returns, one thread hop for each operation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final

from vault.errors import VaultError
from vault.model import Finding
from vault.ports.objects import Deletion, ObjectInfo, ObjectMeta
from vault.storage.objects.names import check_meta, check_name, check_places, check_prefix, check_range, total_bytes
from vault.storage.objects.tree import ObjectTree, create_tree
from vault.threads import in_thread, run_in

_PAGE: Final = 1000
_LOW_SPACE_BYTES: Final = 5 << 30
_PLACES_AT_ONCE: Final = 64
"""How much of `delete_below` is one thread's: much shares a sync."""
_DELETING: Final = 8
"""Threads of their own, so that no put waits behind a deletion. Several: an unlink waits while others' syncs commit."""


class FilesystemObjectStore:
    """An ObjectStore under one directory; `create` makes it, and `open` refuses any other directory.

    Several processes on one machine may have it open. It keeps no versions and enforces no lock: the catalog and the
    keyring decide retention, and the metadata here serves to rebuild a lost catalog.
    """

    kind: str = "filesystem"

    def __init__(self, tree: ObjectTree, pool: ThreadPoolExecutor) -> None:
        self._tree = tree
        self._pool = pool
        self._deleting = ThreadPoolExecutor(_DELETING, thread_name_prefix="deleting")

    @staticmethod
    async def create(root: Path) -> None:
        """Make `root` an empty store, or leave an existing store unchanged; ConfigError if it holds other files."""
        await in_thread(create_tree, root)

    @classmethod
    async def open(cls, root: Path, *, workers: int = 8, tidies: bool = True) -> FilesystemObjectStore:
        """Open a store that `create` made; ConfigError if there is none. With `tidies`, remove what a crash left.

        A missing marker is refused because an unmounted disk would otherwise look like a store that lost every object.
        """
        tree = await in_thread(ObjectTree, root, tidies=tidies)
        return cls(tree, ThreadPoolExecutor(workers, thread_name_prefix="objects"))

    async def put(self, name: str, chunks: Sequence[bytes | memoryview], *, meta: ObjectMeta) -> ObjectInfo:
        """Write, sync, rename, sync the directory; see ObjectStore.put."""
        check_name(name)
        check_meta(meta)
        size = total_bytes(chunks)
        await run_in(self._pool, self._tree.put, name, chunks, size, meta)
        return ObjectInfo(name=name, size=size, meta=meta)

    async def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Read a range with one `pread`; see ObjectStore.get."""
        check_name(name)
        check_range(start, length)
        return await run_in(self._pool, self._tree.get, name, start, length)

    async def stat(self, name: str) -> ObjectInfo:
        """Read the object's header; see ObjectStore.stat."""
        return await run_in(self._pool, self._tree.stat, check_name(name))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield names and sizes (no meta) in name order; see ObjectStore.list."""
        walk = self._tree.walk(check_prefix(prefix))

        def page() -> list[ObjectInfo]:
            return [*islice(walk, _PAGE)]

        while found := await run_in(self._pool, page):
            for info in found:
                yield info

    async def set_held(self, name: str, *, held: bool) -> None:
        """Change one byte in place, durably; see ObjectStore.set_held."""
        await run_in(self._pool, self._tree.set_held, check_name(name), held=held)

    async def delete(self, name: str) -> Deletion:
        """Unlink the object with its metadata, durably; see ObjectStore.delete."""
        return await run_in(self._pool, self._tree.delete, check_name(name))

    async def delete_below(
        self, places: Mapping[str, Collection[str]]
    ) -> Mapping[str, Sequence[Deletion] | VaultError]:
        """Empty and remove directories, many in one thread; see ObjectStore.delete_below."""
        ordered = sorted(check_places(places).items())
        shares = [dict(ordered[start : start + _PLACES_AT_ONCE]) for start in range(0, len(ordered), _PLACES_AT_ONCE)]
        outcomes: dict[str, Sequence[Deletion] | VaultError] = {}
        for found in await asyncio.gather(
            *(run_in(self._deleting, self._tree.delete_below, share) for share in shares)
        ):
            outcomes.update(found)
        return outcomes

    async def still_there(self) -> None:
        """Check that the opened directory is still at its path; see ObjectStore.still_there."""
        await run_in(self._pool, self._tree.require_place)

    async def check(self) -> Sequence[Finding]:
        """Return whether a block can be written, and how much room is left."""
        root = self._tree.root
        try:
            free = await run_in(self._pool, self._tree.probe)
        except VaultError as error:
            return (Finding(level="error", subject="objects", message=error.message, hint="is the disk mounted?"),)
        low = free < _LOW_SPACE_BYTES
        return (
            Finding(
                level="warning" if low else "ok",
                subject="objects",
                message=f"{root} is writable, {free >> 20} MiB free",
                hint="free space before recorders are turned away" if low else None,
            ),
        )

    async def close(self) -> None:
        """Wait for work under way and release the directory; idempotent."""
        await in_thread(self._deleting.shutdown)
        await in_thread(self._pool.shutdown)
        self._tree.close()
