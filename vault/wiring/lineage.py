"""Tells whether the catalog is the one that this keyring goes with, or an older one from a backup.

Every writer section that changes the keyring stores the keyring's new rank in the catalog before the next one begins,
and an orderly end makes one last change. So a catalog with an older rank is an older catalog. After a crash between the
two writes the right catalog has an older rank too; it is then treated as older once, which only costs time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from vault.config import Config
from vault.disk import share_lock, try_lock
from vault.errors import ConfigError, IntegrityError, VaultError
from vault.format.keyring import MARKER
from vault.keystore.keyring import Keyring
from vault.keystore.replicas import Rank
from vault.model import Finding
from vault.ports.catalog import Catalog
from vault.services.keys import COUNTED_SINCE
from vault.wiring.adapters import RECONCILE, keyring_replicas


async def kept_keyring(config: Config) -> str | None:
    """Return the name of a replica that holds a keyring, None if no replica that answers does."""
    for store in keyring_replicas(config):
        try:
            if (await store.read([MARKER]))[MARKER] is not None:
                return store.name
        except VaultError:
            continue
        finally:
            await store.close()
    return None


async def no_catalog(config: Config) -> ConfigError:
    """Return the error for a missing catalog; it tells a vault that lost its catalog from a place without a vault."""
    replica = await kept_keyring(config)
    if replica is None:
        return ConfigError(f"there is no vault at {config.resolve(None, '')}", hint="create one: callvault init")
    place = config.catalog_path or "the database of catalog.url"
    return ConfigError(
        f"there is no catalog at {place}, but the vault's keyring is at {replica}: the catalog was lost or moved; "
        "nothing was created or changed",
        hint="put it back, or restore it from a backup: callvault backup restore DEST; only where an init was cut "
        "short, and nothing was ever recorded, move all of the vault's directories away and run init again",
    )


KEYRING_RANK: Final = "keyring_rank"
"""The catalog setting with the keyring's rank when it was last written."""
_CLEAN: Final = "keyring_clean"
"""The catalog setting that tells whether the last process to use it ended in order."""
_OLDER_KEYRING: Final = "the keyring is older than the catalog: it lacks keys that the catalog counts on"
_OLDER_KEYRING_HINT: Final = "put the newest replicas of the keyring back; an older copy must never replace them"

logger = logging.getLogger(__name__)


async def same_lineage(catalog: Catalog, keyring: Keyring, users: CatalogUsers, stack: AsyncExitStack) -> bool:
    """Return whether the keyring's latest rank is in this catalog.

    Unless that is certain, new recordings move to a new generation, in which no leaf was ever reserved: the leaf
    counters of an older catalog are behind. After a kill, a copy of the catalog from the same session could have taken
    its place without a trace, so a kill moves the generation too. A catalog that is not the same is marked for
    reconciliation.

    IntegrityError if the keyring is the older one: with it, the newest recordings would look shredded.
    """
    async with keyring.writer() as writer:
        await keyring.refresh()
        noted = await catalog.setting(KEYRING_RANK)
        if noted is not None and _rank(noted) > keyring.rank:
            raise IntegrityError(f"{_OLDER_KEYRING}; nothing was changed", hint=_OLDER_KEYRING_HINT)
        pending = await catalog.setting(RECONCILE)
        same = noted in (None, _text(keyring.rank)) and not pending
        if not same and not pending:
            # Before the new rank is stored: after a crash in between, the catalog would otherwise look like the current
            # one.
            await catalog.save_setting(RECONCILE, "a catalog older than the keyring")
        ended_in_order = not users.alone or await catalog.setting(_CLEAN) != "no"
        await catalog.save_setting(_CLEAN, "no")

        async def note(rank: Rank) -> None:
            await catalog.save_setting(KEYRING_RANK, _text(rank))

        keyring.tell(note)
        if same and ended_in_order:
            await writer.settle()
            if await catalog.setting(COUNTED_SINCE) is None:  # made before rotations closed generations
                await catalog.save_setting(COUNTED_SINCE, str(keyring.generation))
        else:
            logger.warning("new recordings start a new generation", extra={"fields": {"catalog_is_older": not same}})
            # Before the generation moves: until then no generation's counters are relied on.
            await catalog.save_setting(COUNTED_SINCE, str(keyring.generation + 1))
            await writer.bump_generation()
    stack.push_async_callback(_end, catalog, keyring, users)
    return same


async def lineage_findings(catalog: Catalog, keyring: Keyring) -> Sequence[Finding]:
    """Return what the next start would do about a catalog and keyring of different times; changes nothing."""
    noted = await catalog.setting(KEYRING_RANK)
    if noted is not None and _rank(noted) > keyring.rank:
        return (Finding(level="error", subject="keyring", message=_OLDER_KEYRING, hint=_OLDER_KEYRING_HINT),)
    why = await catalog.setting(RECONCILE)
    if not why and noted in (None, _text(keyring.rank)):
        return ()
    message = f"the catalog has to be reconciled ({why or 'it is older than the keyring'}): the next start does it"
    return (Finding(level="warning", subject="catalog", message=message),)


async def _end(catalog: Catalog, keyring: Keyring, users: CatalogUsers) -> None:
    """Make copies of the catalog taken until now recognisable as older; without this the next start assumes a kill."""
    if not users.last():
        return
    try:
        async with keyring.writer() as writer:
            await writer.touch()
        await catalog.save_setting(_CLEAN, "yes")
    except VaultError as error:
        logger.warning("the end was not noted", extra={"fields": {"reason": error.message}})


def _text(rank: Rank) -> str:
    return ".".join(str(number) for number in rank)


def _rank(text: str) -> Rank:
    fence, epoch, revision = map(int, text.split("."))
    return fence, epoch, revision


class CatalogUsers:
    """The processes of this machine that use one catalog file; the kernel drops those that end.

    With None, for a catalog on a server, other processes cannot be counted: every start is treated as one after a kill.
    """

    def __init__(self, catalog: Path | None) -> None:
        self._handle = -1
        self.alone = True
        if catalog is not None:
            self._handle = os.open(f"{catalog}.users", os.O_RDWR | os.O_CREAT, 0o600)
            self.alone = self.last()

    def last(self) -> bool:
        """Tell whether no other process uses the catalog now; this process counts as a user from here on."""
        if self._handle < 0:
            return False
        alone = try_lock(self._handle)
        # A shared lock from here on: others may join, and each finds that it is not alone.
        share_lock(self._handle)
        return alone

    def leave(self) -> None:
        """Stop counting as a user."""
        if self._handle >= 0:
            os.close(self._handle)
