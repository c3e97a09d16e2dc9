"""Opens the vault of a configuration: recovery first, then the background work."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from vault.config import Config
from vault.errors import ConfigError, Unavailable, VaultError
from vault.keystore.keyring import Keyring
from vault.model import Finding
from vault.ports.catalog import Catalog
from vault.ports.cluster import ClusterLocks
from vault.ports.progress import Progress, Silent
from vault.ports.time import Clock, Entropy
from vault.services.recordings.dossiers import Coordinates
from vault.services.surroundings import Surroundings
from vault.services.vault import Vault
from vault.storage.catalog.catalog import SqlCatalog, open_catalog
from vault.storage.journal.journal import FileJournal
from vault.telemetry import Metrics
from vault.threads import in_thread
from vault.wiring.adapters import (
    KEYRING_ID,
    RECONCILE,
    SystemClock,
    catalog_place,
    cluster_locks,
    keyring_replicas,
    open_store,
    root_keys,
)
from vault.wiring.compose import Adapters, compose
from vault.wiring.files import refuse_unusable
from vault.wiring.init import identity_findings
from vault.wiring.lineage import CatalogUsers, no_catalog, same_lineage
from vault.wiring.retention import bounds_of, retention_findings

if TYPE_CHECKING:
    from vault.services.backup.reconcile import Reconciled

# -- memory of the process ----------------------------------------------------------------------------------------

_PR_SET_DUMPABLE: Final = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK: Final = 14
_SWAP_HINT: Final = "turn swap off or encrypt it, or let the service lock memory (systemd: LimitMEMLOCK=infinity)"

logger = logging.getLogger(__name__)


def guard_memory() -> None:
    """Disable core files and other processes' access to this one's memory, and keep it out of swap where permitted.

    A refusal is logged; `doctor` says what to do. Python copies and frees memory as it likes, so this bounds where keys
    can end up, not how long they stay in memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    # Without this a piped core_pattern still gets the memory even if core files are off, and ptrace reads it live.
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        logger.warning("the process stays dumpable", extra={"fields": {"errno": ctypes.get_errno()}})
    if not may_lock():
        # A finite limit would turn the next large allocation into a failure: worse than swap.
        logger.info("memory is not locked: the process may not", extra={"fields": {"swap": swap_in_use()}})
    elif libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        logger.warning("memory is not locked", extra={"fields": {"errno": ctypes.get_errno()}})


def may_lock(*, status: Path = Path("/proc/self/status")) -> bool:
    """Tell whether this process may lock as much memory as it will ever use."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return False
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)


def swap_in_use(*, swaps: Path = Path("/proc/swaps")) -> bool:
    """Tell whether the machine swaps; True if that cannot be read."""
    try:
        return len(swaps.read_text().splitlines()) > 1
    except OSError:
        return True


def memory_findings(
    *, status: Path = Path("/proc/self/status"), swaps: Path = Path("/proc/swaps")
) -> Sequence[Finding]:
    """Return `doctor`'s findings on keys in memory."""
    if not swap_in_use(swaps=swaps):
        return (Finding(level="ok", subject="memory", message="the machine does not swap"),)
    if may_lock(status=status):
        return (Finding(level="ok", subject="memory", message="the machine swaps, and this user may lock memory"),)
    text = "the machine swaps and this user may not lock memory: keys of living recordings can reach the swap device"
    return (Finding(level="warning", subject="memory", message=text, hint=_SWAP_HINT),)


# -- opening a vault ----------------------------------------------------------------------------------------------

_PRECREATE_SECONDS = 3600.0
_LABEL_SECONDS = 5.0
_PRECREATE_AGAIN_SECONDS = 10.0


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

    Nothing is created: a missing piece is a ConfigError. With `background` false only explicit calls do work, apart
    from labelling held objects and renewing the keyring's lease. A catalog older than the keyring is reconciled first:
    `progress` is called during that, and `reconciled` with its result.
    """
    surroundings = Surroundings(
        clock=clock or SystemClock(), entropy=entropy, metrics=Metrics(registry or CollectorRegistry())
    )
    await in_thread(refuse_unusable, config)
    async with AsyncExitStack() as stack:
        catalog, vault = await _assemble(config, surroundings, stack)
        stack.push_async_callback(vault.status.close)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(vault.keyring.run()), group.create_task(vault.labels.run())]
            try:
                outcome = await _reconcile(catalog, vault, surroundings, progress or Silent())
                if outcome is not None and reconciled is not None:
                    reconciled(outcome)
                if background:
                    await vault.presence.register()
                await _recover(vault)
                if background:
                    tasks += [group.create_task(work) for work in _background(vault, config)]
                yield vault
                await vault.labels.settled(within=_LABEL_SECONDS)
            finally:
                for task in tasks:
                    task.cancel()
                if background:
                    with suppress(VaultError):
                        await vault.presence.beat()


@asynccontextmanager
async def observe_vault(config: Config, *, clock: Clock) -> AsyncIterator[tuple[Catalog, Keyring]]:
    """Open the catalog and the keyring for reading, beside a server or without one."""
    async with AsyncExitStack() as stack:
        locks = cluster_locks(config, clock, observes=True)
        surroundings = Surroundings(clock=clock, entropy=os.urandom, metrics=Metrics(CollectorRegistry()))
        yield await _look(config, surroundings, stack, locks=locks)


def _background(vault: Vault, config: Config) -> list[Coroutine[None, None, None]]:
    work = [
        vault.storer.run(),
        vault.ingest.run(),
        vault.parts.run(),
        vault.presence.run(),
        vault.status.run(),
        vault.alerts.run(),
        vault.access.underway.run(),
        vault.access.denials.run(),
        _keep_ahead(vault),
        vault.shredder.finish(),
    ]
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
            await asyncio.sleep(_PRECREATE_AGAIN_SECONDS)
        else:
            await asyncio.sleep(_PRECREATE_SECONDS)


async def _recover(vault: Vault) -> None:
    """Finish interrupted work in dependency order; nothing is served before it is done."""
    await vault.holds.recover()
    await vault.ingest.recover()
    await vault.parts.recover()
    await vault.sweeper.resume()


async def _assemble(config: Config, surroundings: Surroundings, stack: AsyncExitStack) -> tuple[SqlCatalog, Vault]:
    locks = cluster_locks(config, surroundings.clock)
    catalog, keyring = await _look(config, surroundings, stack, locks=locks)
    bounds, tenants = bounds_of(config, keyring), await catalog.tenants()
    said = retention_findings(bounds, trial=keyring.trial, tenants=tenants)
    for finding in (*said, *identity_findings(config.identity, trial=keyring.trial)):
        logger.warning(finding.message, extra={"fields": {"hint": finding.hint}})
    place = catalog_place(config)
    users = CatalogUsers(place if isinstance(place, Path) else None)
    stack.callback(users.leave)
    await same_lineage(catalog, keyring, users, stack)
    store = await open_store(config)
    stack.push_async_callback(store.close)
    journal = await in_thread(
        FileJournal,
        config.journal_path,
        clock=surroundings.clock,
        entropy=surroundings.entropy,
        metrics=surroundings.metrics,
        file_bytes=config.journal.file_bytes,
        bytes_bound=config.journal.max_bytes,
        disk_reserve_bytes=config.journal.disk_reserve,
        commit_interval_seconds=config.journal.commit_interval.total_seconds(),
        undurable_bound=config.journal.max_undurable_bytes,
    )
    stack.push_async_callback(journal.close)
    return catalog, compose(config, surroundings, Adapters(catalog, keyring, store, journal, locks))


async def _look(
    config: Config, surroundings: Surroundings, stack: AsyncExitStack, *, locks: ClusterLocks
) -> tuple[SqlCatalog, Keyring]:
    """Open the catalog and the keyring; changes nothing, so callers that only read may use it too."""
    place = catalog_place(config)
    catalog = open_catalog(place, clock=surroundings.clock, metrics=surroundings.metrics)
    stack.push_async_callback(catalog.close)
    if await catalog.is_empty():
        raise await no_catalog(config)
    await catalog.check_schema()
    # A first look has nothing to fall back on: not while another node's sweep replaces what it reads.
    async with locks.hold("keyring"):
        keyring = await Keyring.observe(
            keyring_replicas(config),
            root_keys(config, surroundings.clock, surroundings.entropy),
            clock=surroundings.clock,
            entropy=surroundings.entropy,
            metrics=surroundings.metrics,
            guard=partial(locks.hold, "keyring"),
        )
    stack.push_async_callback(keyring.close)
    await _same_vault(catalog, keyring, config)
    return catalog, keyring


async def _reconcile(
    catalog: SqlCatalog, vault: Vault, surroundings: Surroundings, progress: Progress
) -> Reconciled | None:
    why = await catalog.setting(RECONCILE)
    if not why:
        return None
    from vault.services.backup.reconcile import Reconciler  # noqa: PLC0415 - only a restored catalog needs it

    reconciler = Reconciler(
        catalog=catalog,
        keyring=vault.keyring,
        store=vault.store,
        coordinates=Coordinates(catalog=catalog, keyring=vault.keyring),
        surroundings=surroundings,
        progress=progress,
        node=vault.journal.node,
    )
    outcome = await reconciler.run(why)
    logger.warning("the catalog was reconciled", extra={"fields": {"why": why, **outcome.counts()}})
    await catalog.save_setting(RECONCILE, "")
    return outcome


async def _same_vault(catalog: Catalog, keyring: Keyring, config: Config) -> None:
    if await catalog.setting(KEYRING_ID) != keyring.keyring_id.hex():
        raise ConfigError(
            "keyring.replicas: this keyring belongs to another catalog", hint="check the paths in config.toml"
        )
    width = config.retention.cohort_width.total_seconds()
    if keyring.cohort_width_seconds != width:
        raise ConfigError(
            f"retention.cohort_width: the vault was created with {keyring.cohort_width_seconds:g} s, not {width:g} s",
            hint=f'the width is fixed at init: set it back to "{keyring.cohort_width_seconds:.0f}s"',
        )
