"""Journals of nodes that are gone: listing nodes, finishing a journal's recordings, and giving a lost one up."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from vault.config import Config
from vault.errors import Conflict, NotFound, Unavailable
from vault.ids import NodeId
from vault.instants import rfc3339
from vault.ports.cluster import Node
from vault.ports.progress import Progress as StepProgress
from vault.ports.time import Clock
from vault.services.vault import Vault
from vault.storage.catalog.catalog import SqlCatalog, open_catalog
from vault.storage.journal.file import existing_node
from vault.storage.journal.journal import journal_files
from vault.threads import in_thread
from vault.wiring.adapters import SystemClock, catalog_place
from vault.wiring.files import Piece, refuse_unusable
from vault.wiring.open import open_vault

ABSENT_AFTER = timedelta(seconds=60)
"""Six beats: a node not seen for this long has ended, or cannot reach the catalog and accepts nothing."""
_STEP_SECONDS = 0.1
_PATIENCE_SECONDS = 60.0

Progress = Callable[[int, int], None]
"""Called with the number of finished recordings and the total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The result for a node's open recordings."""

    node: NodeId
    recordings: int
    files_left: int
    """Journal files that stay: they hold records of no open recording, or damage to inspect."""


async def journal_status(config: Config, *, clock: Clock | None = None) -> tuple[Sequence[Node], Sequence[NodeId]]:
    """Return every node the catalog knows, and which of them have not been seen lately; reads only."""
    clock = clock or SystemClock()
    async with _catalog(config, clock) as catalog:
        nodes = await catalog.nodes()
        return nodes, [node.id for node in nodes if _absent(node, clock)]


async def recover_journal(config: Config, directory: Path, *, progress: Progress) -> Settled:
    """Finish every open recording of the journal in `directory`: its bytes are stored, then it is truncated.

    An upload that ended in order is sealed. ConfigError if the directory is no journal or its node runs on this
    machine. Conflict if its node was seen lately on another machine. Unavailable if the object store accepts nothing;
    bytes that are not stored then stay in the directory, and the command may be repeated.
    """
    clock = SystemClock()
    node = existing_node(directory)
    async with _catalog(config, clock) as catalog:
        _refuse_living(node, await catalog.nodes(), clock, here=True)
    async with open_vault(_with_journal(config, directory), background=False) as vault:
        count = vault.ingest.unfinished
        await _finish(vault, progress, reason="node_recovered")
        await vault.catalog.forget_node(node)
    files = await in_thread(journal_files, directory)
    return Settled(node=node, recordings=count, files_left=len(files))


async def abandon_node(config: Config, node: NodeId, *, progress: Progress) -> Settled:
    """Close the open recordings of a node whose disk is lost, truncated to what the object store has of them."""
    clock = SystemClock()
    async with _catalog(config, clock) as catalog:
        nodes = await catalog.nodes()
        if node not in [each.id for each in nodes]:
            raise NotFound(f"there is no node {node[:80]}", hint="callvault journal status")
        _refuse_living(node, nodes, clock, here=False)
    # Nothing is recorded meanwhile, so this journal stays empty.
    with tempfile.TemporaryDirectory(prefix="callvault-") as empty:
        async with open_vault(_with_journal(config, Path(empty)), background=False) as vault:
            taken = await vault.ingest.abandon(node)
            await _finish(vault, progress, reason="node_lost")
            await vault.catalog.forget_node(node)
    return Settled(node=node, recordings=len(taken), files_left=0)


async def upgrade_catalog(config: Config, *, progress: StepProgress) -> bool:
    """Upgrade the catalog's schema to this version's, or continue an upgrade; return whether it was older.

    ConfigError if there is no catalog, or a newer one.
    """
    async with _catalog(config, SystemClock(), check=False) as catalog:
        return await catalog.upgrade(progress)


async def recount_catalog(config: Config) -> int:
    """Count the catalog's recordings anew; return how many counts were wrong."""
    async with _catalog(config, SystemClock()) as catalog:
        wrong = await catalog.miscounted()
        await catalog.recount()
        return len(wrong)


@asynccontextmanager
async def _catalog(config: Config, clock: Clock, *, check: bool = True) -> AsyncIterator[SqlCatalog]:
    await in_thread(refuse_unusable, config, (Piece.CATALOG,))
    catalog = open_catalog(catalog_place(config), clock=clock)
    try:
        if check:
            await catalog.check_schema()
        yield catalog
    finally:
        await catalog.close()


def _with_journal(config: Config, directory: Path) -> Config:
    journal = config.journal.model_copy(update={"path": directory.absolute()})
    return config.model_copy(update={"journal": journal})


def _absent(node: Node, clock: Clock) -> bool:
    return clock.now() - node.seen_at >= ABSENT_AFTER


def _refuse_living(node: NodeId, nodes: Sequence[Node], clock: Clock, *, here: bool) -> None:
    """Raise Conflict if the node was seen lately; a node on this machine is judged by the lock on its directory."""
    for each in nodes:
        if each.id != node or _absent(each, clock):
            continue
        if not (here and each.name.startswith(f"{socket.gethostname()}:")):
            raise Conflict(
                f"{node} was seen at {rfc3339(each.seen_at)}; nothing was changed",
                hint=f"stop it, or wait until it has not been seen for {ABSENT_AFTER.total_seconds():.0f} seconds",
            )


async def _finish(vault: Vault, progress: Progress, *, reason: str) -> None:
    """Store and finish every recording that the vault has resumed; Unavailable once there is no more progress."""
    ingest = vault.ingest
    total = ingest.unfinished
    working = asyncio.create_task(vault.storer.run(), name="storer")
    try:
        await ingest.truncate_all(reason, uploading=False)
        state, since = (ingest.unfinished, ingest.unstored_bytes), vault.clock.monotonic()
        while ingest.unfinished:
            if working.done():
                working.result()  # raises what ended it, which is not for the object store to answer for
            progress(total - ingest.unfinished, total)
            await asyncio.sleep(_STEP_SECONDS)
            now = (ingest.unfinished, ingest.unstored_bytes)
            if now != state:
                state, since = now, vault.clock.monotonic()
            elif vault.clock.monotonic() - since > _PATIENCE_SECONDS:
                raise Unavailable(
                    f"the object store accepts nothing; {ingest.unfinished} recordings are not finished yet",
                    hint="bytes that are not stored stay in the journal: repeat the command",
                )
        await vault.parts.tidy()
        progress(total, total)
    finally:
        working.cancel()
        await asyncio.wait([working])
