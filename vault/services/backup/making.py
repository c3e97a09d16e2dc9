"""Makes a backup while the vault runs: one snapshot of the catalog, and every object that it names.

Order: a marker that a backup is under way → catalog parts, from one snapshot → objects that the pool lacks → objects
list → manifest. A crash before the manifest leaves parts that no manifest lists, and objects that the next backup finds
in the pool; `prune` removes both. A backup has coordinates and ciphertext, never a key that opens a recording.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import IO

from vault import __version__
from vault.crypto.backup import open_manifest, open_part, seal_manifest, seal_part
from vault.crypto.derive import open_with_any
from vault.errors import IntegrityError, NotFound, Unavailable, VaultError
from vault.format import backup as layout
from vault.format.backup import BackedObject, BackedRecording, BackupManifest, Cell, Part, PartHeader, TableRows
from vault.format.names import tenant_prefix
from vault.ids import TenantId, new_id
from vault.instants import rfc3339
from vault.model import DataKey, RecordingState
from vault.ports.objects import ObjectMeta, ObjectStore
from vault.ports.progress import Progress
from vault.ports.rescue import BackupRows, CatalogSnapshot
from vault.ports.time import Entropy
from vault.services.surroundings import Surroundings
from vault.threads import in_thread

# -- the destination ----------------------------------------------------------------------------------------------

_SALT_BYTES = 24
_CLASS = "backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A backup at the destination; `manifest` is None if it does not open, and `problem` says why."""

    backup: str
    manifest: BackupManifest | None
    problem: str = ""


class BackupPlace:
    """One destination, with the backup keys: the first key seals, and each of them may open."""

    def __init__(self, *, store: ObjectStore, keys: Sequence[DataKey], keyring: bytes, entropy: Entropy) -> None:
        self.store = store
        self._keys = tuple(keys)
        self._keyring = keyring
        self._entropy = entropy

    # -- writing ------------------------------------------------------------------------------------------------

    async def put_part(self, backup: str, kind: str, index: int, plaintext: bytes, *, at: datetime) -> Part:
        """Seal one part and store it; durable when it returns."""
        header = PartHeader(backup=backup, keyring=self._keyring, kind=kind, index=index)
        data = await in_thread(seal_part, self._keys[0], header, plaintext, salt=self._entropy(_SALT_BYTES))
        return await self._put(header.name, data, at)

    async def put_manifest(self, manifest: BackupManifest, *, at: datetime) -> None:
        """Store the manifest, which makes the backup exist; all parts and objects that it names must be durable."""
        await self._put(layout.manifest_name(manifest.backup), seal_manifest(self._keys[0], manifest), at)

    async def put_marker(self, name: str, *, at: datetime) -> None:
        """Store a marker for other processes that use this destination."""
        await self._put(name, b"callvault", at)

    async def forget(self, backup: str) -> None:
        """Remove a backup; its manifest goes first, so that it is complete or does not exist."""
        await self.store.delete(layout.manifest_name(backup))
        for name in [info.name async for info in self.store.list(layout.snapshot_prefix(backup))]:
            await self.store.delete(name)

    async def _put(self, name: str, data: bytes, at: datetime) -> Part:
        sha256 = hashlib.sha256(data).hexdigest()
        meta = ObjectMeta(retain_until=at, retention_class=_CLASS, sha256=sha256)
        await self.store.put(name, [data], meta=meta)
        return Part(name=name, size=len(data), sha256=sha256)

    # -- reading ------------------------------------------------------------------------------------------------

    async def snapshots(self) -> Mapping[str, Sequence[str]]:
        """Return the names under each backup's prefix, oldest first, also of incomplete backups."""
        found: dict[str, list[str]] = {}
        async for info in self.store.list(layout.SNAPSHOTS):
            backup, _, rest = info.name.removeprefix(layout.SNAPSHOTS).partition("/")
            found.setdefault(backup, []).append(rest)
        return dict(sorted(found.items()))

    async def backups(self) -> Sequence[Listed]:
        """Return every complete backup, oldest first."""
        listed: list[Listed] = []
        for backup, names in (await self.snapshots()).items():
            if layout.MANIFEST not in names:
                continue
            try:
                listed.append(Listed(backup=backup, manifest=await self.manifest(backup)))
            except IntegrityError as error:
                listed.append(Listed(backup=backup, manifest=None, problem=error.message))
        return listed

    async def newest(self) -> str:
        """Return the newest complete backup; NotFound if there is none."""
        existing = [each for each, names in (await self.snapshots()).items() if layout.MANIFEST in names]
        if not existing:
            raise NotFound("there is no backup at this destination", hint="make one: callvault backup create")
        return existing[-1]

    async def manifest(self, backup: str) -> BackupManifest:
        """Return an authenticated manifest; NotFound, or an IntegrityError if it is not this vault's."""
        try:
            data = await self.store.get(layout.manifest_name(backup))
        except NotFound as error:
            raise NotFound(
                f"there is no backup {backup} at this destination", hint="callvault backup list shows the backups"
            ) from error
        manifest = open_with_any(self._keys, lambda key: open_manifest(key, data))
        if (manifest.backup, manifest.keyring) != (backup, self._keyring.hex()):
            raise IntegrityError(f"the manifest of {backup} names another backup or keyring; it was not used")
        return manifest

    async def part(self, manifest: BackupManifest, part: Part) -> bytes:
        """Return the plaintext of one part, checked against the manifest; an IntegrityError says what is wrong."""
        kind, _, index = part.name.rpartition("/")[2].rpartition("-")
        header = PartHeader(backup=manifest.backup, keyring=self._keyring, kind=kind, index=int(index))
        try:
            data = await self.store.get(part.name)
        except NotFound as error:
            raise IntegrityError(f"{part.name} is missing from the destination") from error
        if len(data) != part.size or hashlib.sha256(data).hexdigest() != part.sha256:
            raise IntegrityError(f"{part.name} was changed: its size or hash differs from the manifest")
        return await in_thread(open_with_any, self._keys, lambda key: open_part(key, header, data))

    async def tables(self, manifest: BackupManifest) -> AsyncIterator[layout.TableRows]:
        """Yield the catalog dump, with one part in memory at a time."""
        for part in manifest.of_kind(layout.CATALOG):
            for section in layout.decode_tables(await self.part(manifest, part)):
                yield section

    async def recordings(self, manifest: BackupManifest) -> AsyncIterator[BackedRecording]:
        """Yield the objects list, with one part in memory at a time; recordings of one tenant are consecutive."""
        for part in manifest.of_kind(layout.OBJECTS):
            for recording in layout.decode_objects(await self.part(manifest, part)):
                yield recording

    async def issuer(self, manifest: BackupManifest) -> bytes | None:
        """Return the certificate issuer's private key as PEM, if the backup has it."""
        for part in manifest.of_kind(layout.ISSUER):
            return await self.part(manifest, part)
        return None

    # -- the pool -----------------------------------------------------------------------------------------------

    async def pooled(self, tenant: TenantId) -> Mapping[str, int]:
        """Return the sizes of one tenant's objects in the pool, by their own names."""
        sizes: dict[str, int] = {}
        async for info in self.store.list(layout.pool_name(tenant_prefix(tenant))):
            sizes[info.name.removeprefix(layout.POOL)] = info.size
        return sizes

    async def object(self, item: BackedObject) -> bytes:
        """Return one object of the pool; IntegrityError if it is missing or does not have the listed hash."""
        try:
            data = await self.store.get(layout.pool_name(item.name))
        except NotFound as error:
            raise IntegrityError(f"{item.name} is missing from the pool") from error
        return await verified(item, data)


async def verified(item: BackedObject, data: bytes) -> bytes:
    """Return `data` if it has the size and hash of the object; IntegrityError."""
    digest = await in_thread(hashlib.sha256, data)
    if len(data) != item.size or digest.hexdigest() != item.sha256:
        raise IntegrityError(f"{item.name} was changed: its size or hash differs from the catalog")
    return data


# -- making -------------------------------------------------------------------------------------------------------

UNFINISHED_FOR = timedelta(days=1)
"""A marker older than this was left by a crash."""

_PART_BYTES = 4 << 20
_LISTED_BYTES = 160
_COPIES = 4
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """The result of one backup. `gone` counts recordings shredded while it was made; their objects are not in it."""

    manifest: BackupManifest
    copied_objects: int
    copied_bytes: int
    gone: int


@dataclass(slots=True, kw_only=True)
class _Tally:
    objects: int = 0
    size: int = 0
    copied: int = 0
    copied_bytes: int = 0
    gone: int = 0
    counts: dict[str, int] = field(default_factory=dict)


class BackupMaker:
    """Makes backups of one vault at one destination."""

    def __init__(
        self,
        *,
        place: BackupPlace,
        catalog: BackupRows,
        store: ObjectStore,
        surroundings: Surroundings,
        progress: Progress,
    ) -> None:
        self._place = place
        self._catalog = catalog
        self._store = store
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._progress = progress

    async def create(
        self, *, keyring: bytes, keyring_epoch: int, issuer: bytes | None, objects: bool = True
    ) -> BackupReport:
        """Make one backup and return its contents.

        Unavailable while the destination is being pruned or if a store cannot answer. IntegrityError if an object is
        missing or differs from the catalog. After either error no backup exists; the copied objects stay for the next
        one.
        """
        created = self._clock.now()
        backup = new_id("bak", at=created, entropy=self._entropy)
        started = layout.snapshot_prefix(backup) + layout.STARTED
        await self._place.put_marker(started, at=created)
        try:
            await self._nobody_prunes(created)
            report = await self._make(backup, created, keyring, keyring_epoch, issuer, objects=objects)
        except VaultError:
            # Otherwise pruning would wait a day for this failed backup.
            with suppress(VaultError):
                await self._place.forget(backup)
            raise
        await self._place.store.delete(started)
        return report

    async def _make(
        self, backup: str, created: datetime, keyring: bytes, epoch: int, issuer: bytes | None, *, objects: bool
    ) -> BackupReport:
        tally = _Tally()
        with tempfile.TemporaryFile() as spool:
            async with self._catalog.snapshot() as snapshot:
                revision = snapshot.schema_revision
                parts = [part async for part in self._catalog_parts(backup, snapshot, tally, created)]
                if objects:
                    await self._spool(snapshot, spool, tally)
            # The snapshot is closed before the long copying. Objects are immutable, so the list of them is enough.
            if objects:
                parts += [part async for part in self._objects_parts(backup, spool, tally, created)]
        if issuer is not None:
            parts.append(await self._place.put_part(backup, layout.ISSUER, 0, issuer, at=created))
        manifest = BackupManifest(
            backup=backup,
            keyring=keyring.hex(),
            keyring_epoch=epoch,
            created=rfc3339(created),
            finished=rfc3339(self._clock.now()),
            software=f"callvault {__version__}",
            schema_revision=revision,
            counts=tally.counts,
            parts=tuple(parts),
            pool_objects=tally.objects if objects else None,
            pool_bytes=tally.size if objects else None,
        )
        # Last: the manifest makes the backup exist, so all that it names must be durable before.
        await self._place.put_manifest(manifest, at=created)
        return BackupReport(
            manifest=manifest, copied_objects=tally.copied, copied_bytes=tally.copied_bytes, gone=tally.gone
        )

    async def _nobody_prunes(self, now: datetime) -> None:
        """Raise Unavailable while a prune runs; checked after our marker is written, so one of the two sees both."""
        async for info in self._place.store.list(layout.PRUNING):
            if now - layout.backup_began(info.name.removeprefix(layout.PRUNING)) < UNFINISHED_FOR:
                raise Unavailable(
                    "this destination is being pruned; no backup was made",
                    hint="try again when that is done; the marker of a crashed prune is ignored after a day",
                )

    # -- the catalog --------------------------------------------------------------------------------------------

    async def _catalog_parts(
        self, backup: str, snapshot: CatalogSnapshot, tally: _Tally, at: datetime
    ) -> AsyncIterator[Part]:
        self._progress.begin("catalog", None)
        index = 0
        async for sections in _weighed(snapshot.tables()):
            plaintext = await in_thread(layout.encode_tables, sections)
            yield await self._place.put_part(backup, layout.CATALOG, index, plaintext, at=at)
            index += 1
            for section in sections:
                tally.counts[section.table] = tally.counts.get(section.table, 0) + len(section.rows)
            self._progress.advance(len(plaintext))

    # -- the objects --------------------------------------------------------------------------------------------

    async def _spool(self, snapshot: CatalogSnapshot, spool: IO[bytes], tally: _Tally) -> None:
        """Write the names and hashes of the objects into a file, so that memory holds only one page of them."""
        async for page in _paged(snapshot.objects()):
            data = layout.encode_objects(page)
            spool.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
            tally.size += sum(item.size for each in page for item in each.objects)

    async def _objects_parts(self, backup: str, spool: IO[bytes], tally: _Tally, at: datetime) -> AsyncIterator[Part]:
        self._progress.begin("objects", tally.size)
        tally.size = 0
        tenant: TenantId | None = None
        pooled: dict[str, int] = {}
        slots = asyncio.Semaphore(_COPIES)
        for index, page in enumerate(_spooled(spool)):
            kept: list[BackedRecording] = []
            for each in page:
                if each.coordinate.cohort.tenant != tenant:
                    tenant = each.coordinate.cohort.tenant
                    pooled = dict(await self._place.pooled(tenant))
                if await self._copy(each, pooled, slots, tally):
                    kept.append(each)
                else:
                    tally.gone += 1
            tally.objects += sum(len(each.objects) for each in kept)
            tally.size += sum(item.size for each in kept for item in each.objects)
            yield await self._place.put_part(backup, layout.OBJECTS, index, layout.encode_objects(kept), at=at)

    async def _copy(
        self, recording: BackedRecording, pooled: dict[str, int], slots: asyncio.Semaphore, tally: _Tally
    ) -> bool:
        """Copy a recording's objects into the pool; False if it was shredded meanwhile."""
        missing = [item for item in recording.objects if pooled.get(item.name) != item.size]
        self._progress.advance(sum(item.size for item in recording.objects if item not in missing))
        copies = (self._copy_one(recording, item, slots) for item in missing)
        outcomes = await asyncio.gather(*copies, return_exceptions=True)
        absent = None
        for outcome in outcomes:
            if isinstance(outcome, NotFound):
                absent = outcome
            elif isinstance(outcome, BaseException):
                raise outcome
        if absent is None:
            tally.copied += len(missing)
            tally.copied_bytes += sum(item.size for item in missing)
            return True
        states = await self._catalog.recording_states([recording.recording])
        if states.get(recording.recording) is RecordingState.SHREDDED:
            return False
        raise IntegrityError(
            f"an object of {recording.recording} is missing from the store; no backup was made",
            hint="find it, or find out why it is gone: the recording cannot be played either",
        ) from absent

    async def _copy_one(self, recording: BackedRecording, item: BackedObject, slots: asyncio.Semaphore) -> None:
        async with slots:
            data = await verified(item, await self._store.get(item.name))
            meta = ObjectMeta(
                retain_until=datetime.fromtimestamp(recording.retain_until_ms / 1000, UTC),
                retention_class=recording.retention_class,
                sha256=item.sha256,
            )
            await self._place.store.put(layout.pool_name(item.name), [data], meta=meta)
        self._progress.advance(item.size)


async def _weighed(pages: AsyncIterator[TableRows]) -> AsyncIterator[Sequence[TableRows]]:
    """Group pages of rows into parts of a few megabytes."""
    sections: list[TableRows] = []
    weight = 0
    async for page in pages:
        start = 0
        for end, row in enumerate(page.rows, start=1):
            weight += sum(map(_weight, row))
            if weight >= _PART_BYTES:
                yield [*sections, replace(page, rows=page.rows[start:end])]
                sections, weight, start = [], 0, end
        if start < len(page.rows):
            sections.append(replace(page, rows=page.rows[start:]))
    if sections:
        yield sections


def _weight(cell: Cell) -> int:
    return len(cell) + 5 if isinstance(cell, str | bytes) else 9


async def _paged(recordings: AsyncIterator[BackedRecording]) -> AsyncIterator[Sequence[BackedRecording]]:
    page: list[BackedRecording] = []
    weight = 0
    async for each in recordings:
        page.append(each)
        weight += _LISTED_BYTES * (1 + len(each.objects))
        if weight >= _PART_BYTES:
            yield page
            page, weight = [], 0
    if page:
        yield page


def _spooled(spool: IO[bytes]) -> Iterator[Sequence[BackedRecording]]:
    spool.seek(0)
    while length := spool.read(_LENGTH_BYTES):
        yield layout.decode_objects(spool.read(int.from_bytes(length, "big")))
