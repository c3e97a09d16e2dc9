"""Backups of a vault that may be running: make, list, verify, prune."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CollectorRegistry

from vault.config import Config
from vault.errors import ConfigError
from vault.keystore.keyring import Keyring
from vault.ports.progress import Progress
from vault.ports.time import Clock, Entropy
from vault.services.backup.care import BackupCare, Pruned, Verification
from vault.services.backup.making import BackupMaker, BackupReport
from vault.services.backup.place import BackupPlace, Listed
from vault.services.surroundings import Surroundings
from vault.storage.catalog.catalog import open_catalog
from vault.telemetry import Metrics
from vault.wiring.adapters import KEYRING_ID, SystemClock, catalog_place, observe_keyring, open_destination, open_store
from vault.wiring.files import Piece, refuse_unusable
from vault.wiring.lineage import no_catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Backups:
    """A destination and the keyring in its present state; it writes nothing to the vault."""

    config: Config
    surroundings: Surroundings
    keyring: Keyring
    place: BackupPlace

    async def make(self, *, objects: bool, progress: Progress) -> BackupReport:
        """Make a backup. With `objects` false it contains no objects: something else replicates their store."""
        await asyncio.to_thread(refuse_unusable, self.config, (Piece.CATALOG, Piece.OBJECTS))
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
