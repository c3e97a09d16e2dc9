"""Making, recovering, repairing and checking a keyring: what happens when nobody is writing it.

The head decides. Only after the highest head that opens stands on every replica are other root versions of this
keyring leftovers: orphans of a shred that never swapped its head, or the destroy that a crash left pending.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from vault.errors import ConfigError, Invalid, Unavailable, VaultError
from vault.format.keyring import ID_BYTES, KEY_BYTES
from vault.keystore import sealing
from vault.keystore.files import Files
from vault.keystore.replicas import INDEX, PAGES, Replicas
from vault.keystore.state import State
from vault.keystore.storing import Stored, load, newest, stage, wrap_secret
from vault.keystore.threads import in_thread
from vault.model import Finding
from vault.ports.keys import RootKeyProvider
from vault.ports.time import Entropy

_LOG: Final = logging.getLogger(__name__)
_SUBJECT: Final = "keyring"


async def create(
    replicas: Replicas,
    provider: RootKeyProvider,
    *,
    keyring_id: bytes,
    cohort_width_seconds: float,
    lease: timedelta,
    entropy: Entropy,
) -> None:
    """Make an empty keyring in epoch 1. Markers go last: what a crash leaves half made is never opened."""
    width_ms = round(cohort_width_seconds * 1000)
    if len(keyring_id) != ID_BYTES or width_ms < 1:
        raise Invalid("a keyring has an id of 16 bytes and a cohort width of at least a millisecond")
    state = State(
        keyring=keyring_id,
        epoch=1,
        revision=0,
        fence=0,
        generation=0,
        cohort_width_ms=width_ms,
        last_sweep_ms=None,
        swept_through=None,
        lease_ms=lease // timedelta(milliseconds=1),
        backup_key=entropy(KEY_BYTES),
        pages={},
    )
    await in_thread(replicas.initialise)
    unlock = await in_thread(replicas.lock)
    try:
        root = await provider.new_version(sealing.version_tag(keyring_id, state.epoch))
        secret = await wrap_secret(provider, root, state, entropy)
        stored, blobs = await in_thread(stage, state, secret, before=None, entropy=entropy)
        await in_thread(replicas.write, blobs)
        await in_thread(replicas.install, stored.head)
        await in_thread(replicas.mark, keyring_id)
    finally:
        unlock()


async def recover(
    replicas: Replicas, provider: RootKeyProvider, keyring_id: bytes, *, fence: int | None = None
) -> Stored:
    """Return the newest state that opens, after bringing every replica to it and destroying leftovers.

    With `fence`, Unavailable if another process has opened the keyring since: its state is not ours to touch.
    """
    if await in_thread(replicas.keyring_id) != keyring_id:
        raise ConfigError("the keyring's replicas were exchanged under a running process")
    stored = await newest(provider, replicas, keyring_id, await in_thread(replicas.heads))
    if fence is not None and stored.state.fence != fence:
        raise Unavailable("another process has taken over the keyring; this one must be restarted")
    for path in await in_thread(replicas.mend, stored.head, stored.blobs()):
        _LOG.warning("keyring replica repaired", extra={"fields": {"replica": str(path)}})
    await _destroy_leftovers(provider, stored)
    strays = await in_thread(replicas.strays, stored.blobs())
    await in_thread(replicas.collect, sorted(strays))
    return stored


async def _destroy_leftovers(provider: RootKeyProvider, stored: Stored) -> None:
    """Destroy every root version of this keyring except the head's; Unavailable until the provider lists none."""
    for version in await _leftovers(provider, stored):
        await provider.destroy(version)
        _LOG.warning("leftover root version destroyed", extra={"fields": {"version": version}})
    if await _leftovers(provider, stored):
        raise Unavailable("a root version that was destroyed is still listed; nothing may go on until it is gone")


async def _leftovers(provider: RootKeyProvider, stored: Stored) -> Sequence[str]:
    versions = await provider.versions()
    if stored.secret.root not in versions:
        # The head has just been opened with it, so the list is wrong, and so may be the rest of it.
        raise Unavailable("the root-key provider does not list the live version; nothing was destroyed")
    return [
        version
        for version, info in versions.items()
        if version != stored.secret.root and sealing.owns(stored.state.keyring, info.tag)
    ]


async def repair_replica(
    path: Path, *, replicas: Sequence[Path], provider: RootKeyProvider, files: Files | None = None
) -> None:
    """Fill the lost replica `path` from the others, which must be in order; the keyring must not be open.

    ConfigError if `path` is not configured or belongs to another keyring. Repeatable.
    """
    seam = files or Files()
    if path not in replicas or len(replicas) == 1:
        raise ConfigError(f"{path} is not one of several configured keyring replicas; nothing was changed")
    others = Replicas([each for each in replicas if each != path], files=seam)
    target = Replicas([path], files=seam)
    keyring_id = await in_thread(others.keyring_id)
    if await in_thread(target.marker, path) not in (None, keyring_id):
        raise ConfigError(
            f"{path} is a replica of another keyring; nothing was changed",
            hint="move that directory away, then repeat the repair",
        )
    unlock = await in_thread(others.lock)
    try:
        stored = await newest(provider, others, keyring_id, await in_thread(others.heads))
        for directory in (path, path / INDEX, path / PAGES):
            await in_thread(seam.make_directory, directory)
        await in_thread(Replicas(replicas, files=seam).mend, stored.head, stored.blobs())
        # The marker goes last: a replica that is only half filled stays one that is refused.
        await in_thread(target.mark, keyring_id)
    finally:
        unlock()


async def check(replicas: Replicas, provider: RootKeyProvider, stored: Stored) -> Sequence[Finding]:
    """Return findings on replicas, root versions and agreement; reads only."""
    found: list[Finding] = []
    if len(replicas.paths) == 1:
        text = "the keyring has a single replica: losing that directory loses every recording"
        found.append(_finding("warning", text, "add a directory on another disk to keyring.replicas"))
    for replica, path in enumerate(replicas.paths):
        try:
            head = (await in_thread(replicas.heads))[replica]
            if head != stored.head:
                found.append(_finding("error", f"the replica {path} does not hold the live head"))
                continue
            await load(provider, replicas, stored.state.keyring, head, replica=replica)
            found.append(_finding("ok", f"the replica {path} opens and is complete"))
        except VaultError as error:
            found.append(_finding("error", f"the replica {path} does not open: {error.message}", error.hint))
    try:
        leftovers = await _leftovers(provider, stored)
        others = len(await provider.versions()) - 1 - len(leftovers)
    except VaultError as error:
        return (*found, _finding("error", error.message, error.hint))
    if leftovers:
        text = f"{len(leftovers)} root version(s) of this keyring wait to be destroyed"
        found.append(_finding("error", text, "restart the vault: opening the keyring destroys them"))
    if others:
        text = f"{others} root version(s) at the provider belong to something else and are left alone"
        found.append(_finding("warning", text))
    return found


def _finding(level: str, message: str, hint: str | None = None) -> Finding:
    return Finding(level=level, subject=_SUBJECT, message=message, hint=hint)
