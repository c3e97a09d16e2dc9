"""Backups of a vault that may be running: make, list, verify, prune; and the way from one back to a vault."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CollectorRegistry

from vault.config import Config
from vault.crypto.signing import SigningKey
from vault.disk import write_whole
from vault.errors import ConfigError, Refused
from vault.format.backup import BackupManifest
from vault.keystore.keyring import Keyring
from vault.ports.progress import Progress
from vault.ports.time import Clock, Entropy
from vault.services.backup.care import BackupCare, Pruned, Verification
from vault.services.backup.making import BackupMaker, BackupReport
from vault.services.backup.place import BackupPlace, Listed
from vault.services.backup.rebuild import PutBack, put_back
from vault.services.backup.reconcile import Reconciled
from vault.services.surroundings import Surroundings
from vault.storage.catalog.catalog import SqlCatalog, open_catalog
from vault.storage.objects.filesystem import FilesystemObjectStore
from vault.telemetry import Metrics
from vault.threads import in_thread
from vault.wiring.adapters import (
    KEYRING_ID,
    RECONCILE,
    RESTORED_FROM,
    SystemClock,
    catalog_place,
    observe_keyring,
    open_destination,
    open_store,
    provision_bucket,
)
from vault.wiring.files import Piece, refuse_unmakeable, refuse_unusable
from vault.wiring.lineage import no_catalog
from vault.wiring.open import open_vault

# -- backup -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Backups:
    """A destination and the keyring in its present state; it writes nothing to the vault."""

    config: Config
    surroundings: Surroundings
    keyring: Keyring
    place: BackupPlace

    async def make(self, *, objects: bool, progress: Progress, whole: bool = False) -> BackupReport:
        """Make a backup. With `objects` false it contains no objects: something else replicates their store.

        With `whole` it needs no earlier backup.
        """
        await in_thread(refuse_unusable, self.config, (Piece.CATALOG, Piece.OBJECTS))
        catalog = open_catalog(catalog_place(self.config), clock=self.surroundings.clock)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(catalog.close)
            if await catalog.is_empty():
                raise await no_catalog(self.config)
            if await catalog.setting(KEYRING_ID) != self.keyring.keyring_id.hex():
                raise ConfigError(
                    "keyring.replicas: this keyring belongs to another catalog", hint="check the paths in config.toml"
                )
            store = await open_store(self.config)
            stack.push_async_callback(store.close)
            maker = BackupMaker(
                place=self.place,
                catalog=catalog,
                store=store,
                surroundings=self.surroundings,
                progress=progress,
            )
            return await maker.create(
                keyring=self.keyring.keyring_id,
                keyring_epoch=self.keyring.epoch,
                issuer=self.config.issuer_path.read_bytes() if self.config.issuer_path.exists() else None,
                objects=objects,
                whole=whole,
            )

    async def listed(self) -> Sequence[Listed]:
        """Return the destination's backups, oldest first."""
        return await self.place.backups()

    async def verify(self, backup: str | None, *, quick: bool, progress: Progress) -> Verification:
        """Verify one backup, by default the newest."""
        return await self._care(progress).verify(backup or await self.place.newest(), quick=quick)

    async def prune(self, *, keep: timedelta, progress: Progress) -> Pruned:
        """Remove backups older than `keep`."""
        return await self._care(progress).prune(keep=keep)

    def _care(self, progress: Progress) -> BackupCare:
        return BackupCare(place=self.place, surroundings=self.surroundings, progress=progress)


@asynccontextmanager
async def open_backups(
    config: Config,
    destination: str,
    *,
    create: bool = False,
    clock: Clock | None = None,
    entropy: Entropy = os.urandom,
) -> AsyncIterator[Backups]:
    """Open a destination with the vault's present backup key; with `create` a missing directory is made."""
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        keyring = await observe_keyring(config, clock, entropy)
        stack.push_async_callback(keyring.close)
        store = await open_destination(config, destination, create=create)
        stack.push_async_callback(store.close)
        place = BackupPlace(store=store, keys=keyring.backup_keys, keyring=keyring.keyring_id, entropy=entropy)
        # A backup takes longer than the lease of one look at the keyring. Not a task group, so that a refusal stays one
        # error.
        renewing = asyncio.create_task(keyring.run(), name="keyring lease")
        try:
            surroundings = Surroundings(clock=clock, entropy=entropy, metrics=Metrics(CollectorRegistry()))
            yield Backups(config=config, surroundings=surroundings, keyring=keyring, place=place)
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])


# -- restore ------------------------------------------------------------------------------------------------------
# `backup restore`: from a destination and the current keyring to a vault that can be served.
#
# Order: objects → issuer key → catalog, in one transaction with the setting that it must be reconciled →
# reconciliation. There is no vault until the catalog is there; after that, whoever opens it reconciles first. Every
# step skips what an earlier attempt has done.


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
        await in_thread(refuse_unmakeable, config)
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
    await in_thread(refuse_unusable, config, (Piece.CATALOG,))
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
    """Make the directories that were lost with the machine, except the keyring's, which is never made again."""
    catalog = [config.catalog_path.parent] if config.catalog_path else []
    for directory in (config.resolve(None, ""), config.journal_path, *catalog):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    match config.objects.kind:
        case "filesystem":
            await FilesystemObjectStore.create(config.objects_path)
        case "s3":
            await provision_bucket(config)
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
