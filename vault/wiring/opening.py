"""Config → open vault: recovery first, then the background work."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta

from prometheus_client import CollectorRegistry

from vault.config import Config
from vault.errors import ConfigError, IntegrityError, Unavailable
from vault.keystore.keyring import Keyring
from vault.ports.catalog import Catalog
from vault.ports.progress import Progress, Silent
from vault.ports.time import Clock, Entropy
from vault.services.coordinates import Coordinates
from vault.services.reconcile import Lineage, Reconciled, Reconciler, lineage, unknown_pins
from vault.services.vault import Vault
from vault.storage.catalog.catalog import SqlCatalog, open_catalog
from vault.storage.journal import FileJournal
from vault.telemetry import Metrics
from vault.wiring.adapters import (
    CLOSED_FENCE,
    KEYRING_FENCE,
    KEYRING_ID,
    RECONCILE,
    SystemClock,
    observe_keyring,
    open_store,
    root_keys,
)
from vault.wiring.compose import Adapters, compose

_PRECREATE_SECONDS = 3600.0

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_vault(
    config: Config,
    *,
    clock: Clock | None = None,
    entropy: Entropy = os.urandom,
    registry: CollectorRegistry | None = None,
    background: bool = True,
    progress: Progress | None = None,
    reconciled: Callable[[Reconciled], None] | None = None,
) -> AsyncIterator[Vault]:
    """Open everything, complete what a crash interrupted, and run the background work until the context ends.

    Nothing is created: a missing piece is a ConfigError. With `background` false only explicit calls do work. A
    catalog that is older than the keyring is reconciled first; `progress` watches that and `reconciled` is told.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        catalog, keyring, vault = await _assemble(config, clock, entropy, registry or CollectorRegistry(), stack)
        outcome = await _reconcile(catalog, keyring, vault, progress or Silent())
        if outcome is not None and reconciled is not None:
            reconciled(outcome)
        await _recover(vault)
        if not background:
            yield vault
            return
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in _background(vault, config)]
            try:
                yield vault
            finally:
                for task in tasks:
                    task.cancel()


def _background(vault: Vault, config: Config) -> list[Coroutine[None, None, None]]:
    work = [vault.storer.run(), vault.ingest.run(), _keep_ahead(vault)]
    if config.sweep.enabled:
        work.append(vault.sweeper.run())
    return work


async def _keep_ahead(vault: Vault) -> None:
    """Create the cohorts of the coming periods well before calls need them."""
    while True:
        try:
            await vault.tenants.precreate()
        except Unavailable as error:
            logger.warning("cohorts not created ahead", extra={"fields": {"reason": error.message}})
        await asyncio.sleep(_PRECREATE_SECONDS)


async def _recover(vault: Vault) -> None:
    """Finish interrupted work in dependency order; nothing is served before it is done."""
    await vault.holds.recover()
    await vault.ingest.recover()
    await vault.sweeper.resume()


async def _assemble(
    config: Config, clock: Clock, entropy: Entropy, registry: CollectorRegistry, stack: AsyncExitStack
) -> tuple[SqlCatalog, Keyring, Vault]:
    metrics = Metrics(registry)
    if not config.catalog_path.exists():
        raise ConfigError(f"there is no vault at {config.resolve(None, '')}", hint="create one: callvault init")
    catalog = open_catalog(config.catalog_path, clock=clock, metrics=metrics)
    stack.push_async_callback(catalog.close)
    await catalog.check_schema()
    # Looked at before it is opened: opening moves the fence, and a refusal must not.
    observed = await observe_keyring(config, clock, entropy)
    await _same_vault(catalog, observed, config)
    found = await _lineage(catalog, observed)
    keyring = await Keyring.open(
        config.replica_paths,
        root_keys(config, clock, entropy),
        clock=clock,
        entropy=entropy,
        metrics=metrics,
        cache_lease=timedelta(0),  # one process: its own view changes before the old root version is destroyed
    )
    stack.push_async_callback(keyring.close)
    stack.push_async_callback(_note_close, catalog, keyring)
    await _distrust(catalog, keyring, found)
    store = await open_store(config)
    stack.push_async_callback(store.close)
    journal = await asyncio.to_thread(
        FileJournal,
        config.journal_path,
        clock=clock,
        entropy=entropy,
        metrics=metrics,
        file_bytes=config.journal.file_bytes,
        bytes_bound=config.journal.max_bytes,
        disk_reserve_bytes=config.journal.disk_reserve,
        commit_interval_seconds=config.journal.commit_interval.total_seconds(),
    )
    stack.push_async_callback(journal.close)
    return catalog, keyring, compose(config, clock, entropy, metrics, Adapters(catalog, keyring, store, journal))


async def _lineage(catalog: Catalog, keyring: Keyring) -> Lineage:
    seen = await catalog.setting(KEYRING_FENCE)
    found = lineage(
        seen=None if seen is None else int(seen),
        clean=await catalog.setting(CLOSED_FENCE) == seen,
        fence=keyring.fence,
        pins_known=not await unknown_pins(catalog, keyring),
    )
    if found is Lineage.AHEAD:
        raise IntegrityError(
            "the keyring is older than the catalog: it misses keys that the catalog counts on; nothing was changed",
            hint="put the newest replicas of the keyring back; an older one must never replace them",
        )
    return found


async def _distrust(catalog: Catalog, keyring: Keyring, found: Lineage) -> None:
    """Settle what the lineage asks for before the catalog says that it has seen this opening.

    The other order would, after a crash in between, take an older catalog for the current one.
    """
    if found is Lineage.OLDER:
        logger.warning("the catalog is older than the keyring; it is reconciled before anything is served")
        await catalog.save_setting(RECONCILE, "a catalog older than the keyring")
    elif found is Lineage.UNSURE:
        # It was not closed, so it may be a copy made while the vault ran: its leaf counters may be behind.
        async with keyring.writer() as writer:
            await writer.bump_generation()
    await catalog.save_setting(KEYRING_FENCE, str(keyring.fence))


async def _reconcile(catalog: SqlCatalog, keyring: Keyring, vault: Vault, progress: Progress) -> Reconciled | None:
    why = await catalog.setting(RECONCILE)
    if not why:
        return None
    reconciler = Reconciler(
        catalog=catalog,
        keyring=keyring,
        store=vault.store,
        coordinates=Coordinates(catalog=catalog, keyring=keyring),
        clock=vault.clock,
        entropy=os.urandom,
        progress=progress,
    )
    outcome = await reconciler.run(why)
    logger.warning("the catalog was reconciled", extra={"fields": {"why": why, **outcome.counts()}})
    await catalog.save_setting(RECONCILE, "")
    return outcome


async def _note_close(catalog: Catalog, keyring: Keyring) -> None:
    """Note that everything is written: a catalog without this note may be a copy of one in use."""
    with suppress(Unavailable):
        await catalog.save_setting(CLOSED_FENCE, str(keyring.fence))


async def _same_vault(catalog: Catalog, keyring: Keyring, config: Config) -> None:
    if await catalog.setting(KEYRING_ID) != keyring.keyring_id.hex():
        raise ConfigError(
            "keyring.replicas: this keyring belongs to another catalog", hint="check the paths in config.toml"
        )
    width = config.retention.cohort_width.total_seconds()
    if keyring.cohort_width_seconds != width:
        raise ConfigError(
            f"retention.cohort_width: the vault was created with {keyring.cohort_width_seconds:g} s, not {width:g} s",
            hint="the width is fixed at init: coordinates count in it",
        )
