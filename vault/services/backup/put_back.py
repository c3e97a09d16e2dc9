"""Restores missing objects, if their key still exists, from a backup's pool into the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from vault.errors import IntegrityError
from vault.format.backup import BackedObject, BackedRecording, BackupManifest
from vault.format.names import tenant_prefix
from vault.ids import TenantId
from vault.ports.keys import Keyring
from vault.ports.objects import ObjectMeta, ObjectStore
from vault.ports.progress import Progress
from vault.services.backup.place import BackupPlace
from vault.services.keys import is_pinned

_COPIES = 4


@dataclass(slots=True, kw_only=True)
class PutBack:
    """How many objects were present, restored, or without a key; `lost` ones are in neither place."""

    present: int = 0
    restored: int = 0
    restored_bytes: int = 0
    without_key: int = 0
    lost: list[str] = field(default_factory=list)


async def put_back(
    place: BackupPlace, manifest: BackupManifest, *, keyring: Keyring, store: ObjectStore, progress: Progress
) -> PutBack:
    """Restore the store's missing objects from the pool; repeatable."""
    outcome = PutBack()
    progress.begin("objects", manifest.pool_bytes)
    slots = asyncio.Semaphore(_COPIES)
    tenant: TenantId | None = None
    stored: Mapping[str, int] = {}
    async for recording in place.recordings(manifest):
        cohort = recording.coordinate.cohort
        if cohort.tenant != tenant:
            tenant = cohort.tenant
            stored = {info.name: info.size async for info in store.list(tenant_prefix(tenant))}
        missing = [item for item in recording.objects if stored.get(item.name) != item.size]
        outcome.present += len(recording.objects) - len(missing)
        if not keyring.derivable(recording.coordinate):
            outcome.without_key += len(missing)
        else:
            await _bring(place, store, recording, missing, keyring=keyring, slots=slots, outcome=outcome)
        progress.advance(sum(item.size for item in recording.objects))
    return outcome


async def _bring(
    place: BackupPlace,
    store: ObjectStore,
    recording: BackedRecording,
    missing: Sequence[BackedObject],
    *,
    keyring: Keyring,
    slots: asyncio.Semaphore,
    outcome: PutBack,
) -> None:
    held = is_pinned(keyring, recording.coordinate)

    async def bring(item: BackedObject) -> None:
        async with slots:
            try:
                data = await place.object(item)
            except IntegrityError:
                outcome.lost.append(item.name)
                return
            meta = ObjectMeta(
                retain_until=datetime.fromtimestamp(recording.retain_until_ms / 1000, UTC),
                retention_class=recording.retention_class,
                sha256=item.sha256,
                held=held,
            )
            await store.put(item.name, [data], meta=meta)
        outcome.restored += 1
        outcome.restored_bytes += item.size

    async with asyncio.TaskGroup() as group:
        for item in missing:
            group.create_task(bring(item))
