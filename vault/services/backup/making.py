"""Makes a backup while the vault runs: the catalog of one instant, and every object that it names.

Order: a marker that a backup is under way → catalog parts → objects that the pool lacks → objects list → manifest. A
crash before the manifest leaves parts that no manifest lists, and objects that the next backup finds in the pool;
`prune` removes both. A backup has coordinates and ciphertext, never a key that opens a recording.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO

from vault import __version__
from vault.errors import IntegrityError, NotFound, Unavailable, VaultError
from vault.format import backup as layout
from vault.format.backup import BackedObject, BackedRecording, BackupManifest, Part
from vault.ids import TenantId, new_id
from vault.instants import rfc3339
from vault.model import RecordingState
from vault.ports.objects import ObjectMeta, ObjectStore
from vault.ports.progress import Progress
from vault.ports.rescue import BackupRows
from vault.services.backup.catalog_parts import CatalogWriter
from vault.services.backup.place import BackupPlace, Former, verified
from vault.services.surroundings import Surroundings

UNFINISHED_FOR = timedelta(days=1)
"""A marker older than this was left by a crash."""

_PART_BYTES = 4 << 20
_LISTED_BYTES = 160
_COPIES = 4
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """The result of one backup. `gone` counts recordings shredded while it was made; their objects are not in it.

    Of the catalog `written_bytes` were written, and `kept_bytes` are parts of earlier backups.
    """

    manifest: BackupManifest
    written_bytes: int
    kept_bytes: int
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
        self, *, keyring: bytes, keyring_epoch: int, issuer: bytes | None, objects: bool = True, whole: bool = False
    ) -> BackupReport:
        """Make one backup and return its contents. With `whole` no part of an earlier backup is in it.

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
            former = None if whole else await self._place.former()
            report = await self._make(backup, created, keyring, keyring_epoch, issuer, former=former, objects=objects)
        except VaultError:
            # Otherwise pruning would wait a day for this failed backup.
            with suppress(VaultError):
                await self._place.forget(backup)
            raise
        await self._place.store.delete(started)
        return report

    async def _make(
        self,
        backup: str,
        created: datetime,
        keyring: bytes,
        epoch: int,
        issuer: bytes | None,
        *,
        former: Former | None,
        objects: bool,
    ) -> BackupReport:
        tally = _Tally()
        writer = CatalogWriter(
            place=self._place, catalog=self._catalog, backup=backup, at=created, progress=self._progress
        )
        catalog = await writer.write(former)
        ranges = layout.encode_ranges(catalog.ranges)
        parts = [*catalog.parts, await self._place.put_part(backup, layout.RANGES, 0, ranges, at=created)]
        if objects:
            # Listed after the catalog was read: what is newer does no harm, and what is missing would.
            with tempfile.TemporaryFile() as spool:
                await self._spool(spool, tally)
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
            schema_revision=catalog.schema_revision,
            counts=catalog.counts,
            parts=tuple(parts),
            pool_objects=tally.objects if objects else None,
            pool_bytes=tally.size if objects else None,
        )
        await self._place.check_present(manifest)
        # Last: the manifest makes the backup exist, so all that it names must be durable before.
        await self._place.put_manifest(manifest, at=created)
        return BackupReport(
            manifest=manifest,
            written_bytes=catalog.written_bytes,
            kept_bytes=catalog.kept_bytes,
            copied_objects=tally.copied,
            copied_bytes=tally.copied_bytes,
            gone=tally.gone,
        )

    async def _nobody_prunes(self, now: datetime) -> None:
        """Raise Unavailable while a prune runs; checked after our marker is written, so one of the two sees both."""
        async for info in self._place.store.list(layout.PRUNING):
            if now - layout.backup_began(info.name.removeprefix(layout.PRUNING)) < UNFINISHED_FOR:
                raise Unavailable(
                    "this destination is being pruned; no backup was made",
                    hint="try again when that is done; the marker of a crashed prune is ignored after a day",
                )

    # -- the objects --------------------------------------------------------------------------------------------

    async def _spool(self, spool: IO[bytes], tally: _Tally) -> None:
        """Write the names and hashes of the objects into a file, so that memory holds only one page of them."""
        async for page in _paged(self._catalog.objects()):
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
