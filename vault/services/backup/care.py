"""Verifies backups, and prunes those that are too old."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from vault.errors import IntegrityError, Unavailable
from vault.format import backup as layout
from vault.format.backup import BackedRecording, BackupManifest
from vault.ids import TenantId, new_id
from vault.ports.progress import Progress
from vault.services.backup.making import UNFINISHED_FOR
from vault.services.backup.place import BackupPlace
from vault.services.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of a verification; a backup without problems can be restored."""

    manifest: BackupManifest
    parts: int
    objects: int
    object_bytes: int
    quick: bool
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune removed and kept; `locked` objects are protected by a lock of their store."""

    dropped: tuple[str, ...]
    kept: tuple[str, ...]
    objects: int
    locked: int


class BackupCare:
    """Verifies and prunes one destination."""

    def __init__(self, *, place: BackupPlace, surroundings: Surroundings, progress: Progress) -> None:
        self._place = place
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._progress = progress

    # -- verifying ----------------------------------------------------------------------------------------------

    async def verify(self, backup: str, *, quick: bool) -> Verification:
        """Check the manifest's MAC, open and parse every part, and check every listed object.

        With `quick` only the objects' sizes are compared, otherwise each object is read and hashed. IntegrityError if
        the manifest does not open; all other problems are in the result.
        """
        manifest = await self._place.manifest(backup)
        problems: list[str] = []
        counts: dict[str, int] = {}
        try:
            self._progress.begin("catalog", sum(part.size for part in manifest.of_kind(layout.CATALOG)))
            async for section in self._place.tables(manifest):
                counts[section.table] = counts.get(section.table, 0) + len(section.rows)
            if counts != dict(manifest.counts):
                problems.append("the numbers of rows in the catalog dump differ from the manifest")
            await self._place.ranges(manifest)
            await self._place.issuer(manifest)
        except IntegrityError as error:
            problems.append(error.message)
        seen, size = await self._objects(manifest, problems, quick=quick)
        return Verification(
            manifest=manifest,
            parts=len(manifest.parts),
            objects=seen,
            object_bytes=size,
            quick=quick,
            problems=tuple(problems),
        )

    async def _objects(self, manifest: BackupManifest, problems: list[str], *, quick: bool) -> tuple[int, int]:
        self._progress.begin("objects", manifest.pool_bytes)
        seen = size = 0
        tenant: TenantId | None = None
        pooled: Mapping[str, int] = {}
        try:
            async for recording in self._place.recordings(manifest):
                if recording.coordinate.cohort.tenant != tenant:
                    tenant = recording.coordinate.cohort.tenant
                    pooled = await self._place.pooled(tenant)
                await self._look(recording, pooled, problems, quick=quick)
                seen += len(recording.objects)
                size += sum(item.size for item in recording.objects)
        except IntegrityError as error:
            problems.append(error.message)
        if (manifest.pool_objects or 0, manifest.pool_bytes or 0) != (seen, size) and not problems:
            problems.append("the number of objects or bytes in the objects list differs from the manifest")
        return seen, size

    async def _look(
        self, recording: BackedRecording, pooled: Mapping[str, int], problems: list[str], *, quick: bool
    ) -> None:
        for item in recording.objects:
            found = pooled.get(item.name)
            if found is None:
                problems.append(f"{item.name} is missing from the pool")
            elif found != item.size:
                problems.append(f"{item.name} has {found} bytes in the pool instead of {item.size}")
            elif not quick:
                try:
                    await self._place.object(item)
                except IntegrityError as error:
                    problems.append(error.message)
            self._progress.advance(item.size)

    # -- pruning ------------------------------------------------------------------------------------------------

    async def prune(self, *, keep: timedelta) -> Pruned:
        """Remove backups older than `keep`, but never the newest, then the pool's objects that no backup lists.

        A part that a remaining backup names stays. Unavailable while a backup is being made. IntegrityError if a
        remaining backup cannot be read: what it needs is then unknown, and nothing is removed. A crash leaves each
        backup complete or removed.
        """
        now = self._clock.now()
        note = layout.PRUNING + new_id("bak", at=now, entropy=self._entropy)
        await self._place.put_marker(note, at=now)
        try:
            return await self._prune(now, keep)
        finally:
            await self._place.store.delete(note)

    async def _prune(self, now: datetime, keep: timedelta) -> Pruned:
        snapshots = await self._place.snapshots()
        existing = [backup for backup, names in snapshots.items() if layout.MANIFEST in names]
        # Without a manifest: what a crash left, one under way, or parts of a removed one that others need.
        unfinished = [backup for backup, names in snapshots.items() if layout.MANIFEST not in names]
        begun = [backup for backup in unfinished if layout.STARTED in snapshots[backup]]
        if any(now - layout.backup_began(backup) < UNFINISHED_FOR for backup in begun):
            raise Unavailable(
                "a backup is being made at this destination; nothing was pruned",
                hint="try again when it is done; the leftovers of a crashed backup are removed after a day",
            )
        old = [backup for backup in existing[:-1] if now - layout.backup_began(backup) > keep]
        kept = [backup for backup in existing if backup not in old]
        # The remaining backups are read first: if one cannot be, nothing is removed.
        listed, needed = await self._listed(kept)
        self._progress.begin("snapshots", None)
        for backup in (*old, *unfinished):
            await self._place.forget(backup, needed=needed)
        removed = locked = 0
        self._progress.begin("objects", None)
        unlisted = [info.name async for info in self._place.store.list(layout.POOL) if _short(info.name) not in listed]
        for name in unlisted:
            gone = (await self._place.store.delete(name)).absent
            removed, locked = removed + gone, locked + (not gone)
            self._progress.advance(1)
        return Pruned(dropped=tuple(old), kept=tuple(kept), objects=removed, locked=locked)

    async def _listed(self, backups: list[str]) -> tuple[set[bytes], set[str]]:
        """Return the short names of every object that any of the backups lists, and the names of their parts."""
        listed: set[bytes] = set()
        needed: set[str] = set()
        for backup in backups:
            self._progress.begin(backup, None)
            manifest = await self._place.manifest(backup)
            needed |= {part.name for part in manifest.parts}
            async for recording in self._place.recordings(manifest):
                listed |= {_short(layout.pool_name(item.name)) for item in recording.objects}
        return listed, needed


def _short(name: str) -> bytes:
    """Return a 16-byte digest of a name in the pool, so that a million of them fit in memory."""
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
