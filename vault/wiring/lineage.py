"""Tells a catalog that was put back from a backup from the one this keyring goes with.

Every writer section that changes the keyring leaves the keyring's new rank in the catalog before the next one begins,
and an orderly end makes one last change. So a catalog that names an older rank is an older catalog; at worst, after a
crash between the two writes, it is the right one, and is then treated as older once, which costs time and nothing else.
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
    """Return what is to be said where no catalog is: a vault that lost it must not be taken for none."""
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
"""The catalog setting that says which state of the keyring it saw last."""
_CLEAN: Final = "keyring_clean"
"""The catalog setting that says whether the last process to use it ended in order."""
_OLDER_KEYRING: Final = "the keyring is older than the catalog: it lacks keys that the catalog counts on"
_OLDER_KEYRING_HINT: Final = "put the newest replicas of the keyring back; an older copy must never replace them"

logger = logging.getLogger(__name__)


async def same_lineage(catalog: Catalog, keyring: Keyring, company: Company, stack: AsyncExitStack) -> bool:
    """Return whether the catalog is the one that the keyring's last state was noted in.

    Unless that is certain, new recordings move to a new generation, where no leaf was ever given out: the leaf counters
    of an older catalog are behind. After a kill, a copy of the catalog from the same session could have taken its place
    without a trace, so a kill moves the generation too. A catalog that is not the same is marked for reconciliation.

    IntegrityError if it is the keyring that was put back: read against an older one, the newest recordings would look
    shredded.
    """
    async with keyring.writer() as writer:
        await keyring.refresh()
        noted = await catalog.setting(KEYRING_RANK)
        if noted is not None and _rank(noted) > keyring.rank:
            raise IntegrityError(f"{_OLDER_KEYRING}; nothing was changed", hint=_OLDER_KEYRING_HINT)
        pending = await catalog.setting(RECONCILE)
        same = noted in (None, _text(keyring.rank)) and not pending
        if not same and not pending:
            # Before the new rank is noted: after a crash in between the catalog would look like the current one.
            await catalog.save_setting(RECONCILE, "a catalog older than the keyring")
        ended_in_order = not company.alone or await catalog.setting(_CLEAN) != "no"
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
            # Before the generation moves: until then the counters of none are relied on.
            await catalog.save_setting(COUNTED_SINCE, str(keyring.generation + 1))
            await writer.bump_generation()
    stack.push_async_callback(_end, catalog, keyring, company)
    return same


async def lineage_findings(catalog: Catalog, keyring: Keyring) -> Sequence[Finding]:
    """Say for `doctor` what the next start would do where catalog and keyring are not of one time; changes nothing."""
    noted = await catalog.setting(KEYRING_RANK)
    if noted is not None and _rank(noted) > keyring.rank:
        return (Finding(level="error", subject="keyring", message=_OLDER_KEYRING, hint=_OLDER_KEYRING_HINT),)
    why = await catalog.setting(RECONCILE)
    if not why and noted in (None, _text(keyring.rank)):
        return ()
    message = f"the catalog has to be reconciled ({why or 'it is older than the keyring'}): the next start does it"
    return (Finding(level="warning", subject="catalog", message=message),)


async def _end(catalog: Catalog, keyring: Keyring, company: Company) -> None:
    """Make copies of the catalog taken until now recognisable as older; without it the next start assumes a kill."""
    if not company.last():
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


class Company:
    """Which processes of this machine use one catalog file; the kernel forgets those that end.

    With None, for a catalog on a server, the others cannot be counted: every start counts as one after a kill.
    """

    def __init__(self, catalog: Path | None) -> None:
        self._handle = -1
        self.alone = True
        if catalog is not None:
            self._handle = os.open(f"{catalog}.users", os.O_RDWR | os.O_CREAT, 0o600)
            self.alone = self.last()

    def last(self) -> bool:
        """Tell whether no other process uses the catalog now, and count as one that does."""
        if self._handle < 0:
            return False
        alone = try_lock(self._handle)
        # Shared from here on: others may come, and each sees that it is not alone.
        share_lock(self._handle)
        return alone

    def leave(self) -> None:
        """Count no more."""
        if self._handle >= 0:
            os.close(self._handle)
