"""`backup restore`: from a destination and the current keyring to a vault that can be served.

Order: objects → issuer key → catalog, in one transaction with the setting that it must be reconciled → reconciliation.
There is no vault until the catalog is there; after that, whoever opens it reconciles first. Every step skips what an
earlier attempt has done.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from vault.config import Config
from vault.crypto.signing import SigningKey
from vault.disk import write_whole
from vault.errors import ConfigError, Refused
from vault.format.backup import BackupManifest
from vault.ports.progress import Progress
from vault.ports.time import Clock, Entropy
from vault.services.backup.place import BackupPlace
from vault.services.backup.put_back import PutBack, put_back
from vault.services.backup.reconcile import Reconciled
from vault.storage.catalog.catalog import SqlCatalog, open_catalog
from vault.storage.objects.filesystem import FilesystemObjectStore
from vault.storage.s3.bucket import provision
from vault.wiring.adapters import RECONCILE, RESTORED_FROM, SystemClock, catalog_place, open_store, s3_settings
from vault.wiring.backup import Backups, open_backups
from vault.wiring.files import Piece, refuse_unmakeable, refuse_unusable
from vault.wiring.open import open_vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The result of a restore. `objects` is None if the backup has none; `issuer`: the issuer key was restored."""

    manifest: BackupManifest
    objects: PutBack | None
    issuer: bool
    reconciled: Reconciled


async def restore_vault(
    config: Config,
    destination: str,
    backup: str | None,
    *,
    progress: Progress,
    clock: Clock | None = None,
    entropy: Entropy = os.urandom,
) -> Restored:
    """Restore one backup, by default the newest, where there is no catalog; after a crash, run it again.

    Refused if there is a catalog that this restore did not begin. Unavailable if the keyring is in use.
    """
    clock = clock or SystemClock()
    async with open_backups(config, destination, clock=clock, entropy=entropy) as backups:
        chosen = backup or await backups.place.newest()
        manifest = await backups.place.manifest(chosen)
        await asyncio.to_thread(refuse_unmakeable, config)
        catalog = open_catalog(catalog_place(config), clock=clock)
        try:
            blank = await _begin(catalog, chosen, config)
            await _prepare(config)
            objects = await _objects(backups, manifest, progress)
            issuer = await _issuer(backups.place, manifest, config)
            if blank:
                progress.begin("catalog", None)
                # In the same transaction as the rows, so that no catalog from a backup ever looks current.
                await catalog.load(
                    manifest.schema_revision,
                    backups.place.tables(manifest),
                    settings={RECONCILE: f"restored from {chosen}", RESTORED_FROM: chosen},
                )
        finally:
            await catalog.close()
    outcome = await _reconciled(config, progress, clock, entropy)
    return Restored(manifest=manifest, objects=objects, issuer=issuer, reconciled=outcome)


async def reconcile_vault(
    config: Config, *, progress: Progress, clock: Clock | None = None, entropy: Entropy = os.urandom
) -> Reconciled:
    """Reconcile a catalog that was restored by other means, whatever its state.

    ConfigError if a server has it open; the server's next start then reconciles it.
    """
    await asyncio.to_thread(refuse_unusable, config, (Piece.CATALOG,))
    clock = clock or SystemClock()
    catalog = open_catalog(catalog_place(config), clock=clock)
    try:
        await catalog.check_schema()
        await catalog.save_setting(RECONCILE, "asked for")
    finally:
        await catalog.close()
    return await _reconciled(config, progress, clock, entropy)


async def _reconciled(config: Config, progress: Progress, clock: Clock, entropy: Entropy) -> Reconciled:
    found: list[Reconciled] = []
    async with open_vault(
        config, clock=clock, entropy=entropy, background=False, progress=progress, reconciled=found.append
    ):
        return found[0]


async def _begin(catalog: SqlCatalog, backup: str, config: Config) -> bool:
    """Tell whether the catalog still has to be loaded; Refused if there is another one."""
    if await catalog.is_blank():
        return True
    await catalog.check_schema()
    if await catalog.setting(RESTORED_FROM) == backup:
        if await catalog.setting(RECONCILE):
            return False
        raise Refused(f"{backup} is restored already; nothing was changed", hint="start the server: callvault serve")
    place = config.catalog_path
    if place is None:
        raise Refused(
            "the database of catalog.url holds a catalog; nothing was restored over it",
            hint="stop every node and name an empty database, or drop and create this one",
        )
    raise Refused(
        f"there is a catalog at {place}; nothing was restored over it",
        hint=f"stop the server and move it away with its -wal and -shm: mkdir aside && mv {place}* aside/",
    )


async def _prepare(config: Config) -> None:
    """Make the directories that were lost with the machine; the keyring is not among them, and is never made anew."""
    catalog = [config.catalog_path.parent] if config.catalog_path else []
    for directory in (config.resolve(None, ""), config.journal_path, *catalog):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    match config.objects.kind:
        case "filesystem":
            await FilesystemObjectStore.create(config.objects_path)
        case "s3":
            await asyncio.to_thread(provision, s3_settings(config))
        case _:
            raise ConfigError("objects.kind: nothing can be restored into memory", hint="use filesystem or s3")


async def _objects(backups: Backups, manifest: BackupManifest, progress: Progress) -> PutBack | None:
    if manifest.pool_objects is None:
        return None
    store = await open_store(backups.config)
    try:
        return await put_back(backups.place, manifest, keyring=backups.keyring, store=store, progress=progress)
    finally:
        await store.close()


async def _issuer(place: BackupPlace, manifest: BackupManifest, config: Config) -> bool:
    """Restore the issuer key if it is gone; an existing one stays."""
    pem = await place.issuer(manifest)
    if pem is None or config.issuer_path.exists():
        return False
    config.issuer_path.with_suffix(".pub").write_bytes(SigningKey.from_pem(pem).public.to_pem())
    write_whole(config.issuer_path, pem)
    return True
