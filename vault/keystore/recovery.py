"""Creates, takes over, repairs and checks a keyring.

A root version of this keyring that is not the head's is a leftover: of a shred that never swapped its head, or of a
destroy that a crash left pending. Leftovers may be destroyed once the newest head that opens is on a write quorum of
replicas, under this writer's own fence. Before that, an overtaken writer could still make its version live. After the
fence that writer finds its heads gone and cannot.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from vault.errors import ConfigError, Invalid, Unavailable, VaultError
from vault.format.keyring import HEAD, ID_BYTES, KEY_BYTES, MARKER, encode_marker
from vault.keystore import sealing
from vault.keystore.pages import Stored, load, newest, stage, wrap_secret
from vault.keystore.replicas import Replicas, Survey, gather_blobs, marker_of
from vault.keystore.state import State
from vault.model import Finding
from vault.ports.keys import KeyringStore, RootKeyProvider
from vault.ports.time import Entropy
from vault.threads import in_thread

_LOG: Final = logging.getLogger(__name__)
_SUBJECT: Final = "keyring"


async def create(
    replicas: Replicas,
    provider: RootKeyProvider,
    *,
    keyring_id: bytes,
    cohort_width_seconds: float,
    lease: timedelta,
    trial: bool,
    entropy: Entropy,
) -> None:
    """Make an empty keyring in epoch 1. Markers are written last, so a half-made keyring never opens."""
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
        trial=trial,
        pages={},
    )
    for store in replicas.stores:
        if not await store.initialise():
            raise ConfigError(
                f"the keyring replica {store.name} is not empty; nothing was changed",
                hint="keyring.replicas names new places for a new vault",
            )
    async with replicas.exclusive():
        root = await provider.new_version(sealing.version_tag(keyring_id, state.epoch))
        secret = await wrap_secret(provider, root, state, entropy)
        stored, blobs = await in_thread(stage, state, secret, before=None, entropy=entropy)
        for store in replicas.stores:
            await store.write(blobs)
            if not await store.swap(None, stored.head):
                raise ConfigError(f"another process filled the keyring replica {store.name} meanwhile")
        for store in replicas.stores:
            await store.write({MARKER: encode_marker(keyring_id)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """The result of a takeover: the state under a new fence, and how many replicas have it."""

    stored: Stored
    replicas_ok: int


async def take_over(
    replicas: Replicas,
    provider: RootKeyProvider,
    survey: Survey,
    *,
    known: Stored,
    thorough: bool,
    entropy: Entropy,
) -> Tenure:
    """Bring the replicas to the newest state that opens, and fence off every earlier writer.

    This asks the provider only if the newest head is of another epoch than `known`. The leftovers of earlier writers at
    the provider stay for `destroy_leftovers`.
    """
    before = await newest(provider, survey, replicas.stores, known=known)
    writing = await replicas.mend(survey, before.head, before.blobs(), thorough=thorough)
    state = replace(before.state, fence=before.state.fence + 1, revision=before.state.revision + 1)
    after, blobs = await in_thread(stage, state, before.secret, before=before, entropy=entropy)
    await writing.write(blobs)
    await writing.swap(before.head, after.head)
    await collect_strays(writing.stores, after)
    return Tenure(stored=after, replicas_ok=len(writing.stores))


async def destroy_leftovers(provider: RootKeyProvider, stored: Stored) -> None:
    """Destroy every root version of this keyring except the head's; Unavailable until the provider lists none."""
    for version in await leftovers(provider, stored):
        await provider.destroy(version)
        _LOG.warning("leftover root version destroyed", extra={"fields": {"version": version}})
    if await leftovers(provider, stored):
        raise Unavailable("a destroyed root version is still listed; the keyring is not written until it is gone")


async def leftovers(provider: RootKeyProvider, stored: Stored) -> Sequence[str]:
    """Return the root versions of this keyring that are not the head's; Unavailable if the list cannot be right."""
    versions = await provider.versions()
    if stored.secret.root not in versions:
        # The head has just been opened with it, so the list is wrong, perhaps in other entries too.
        raise Unavailable("the root-key provider does not list the live version; nothing was destroyed")
    return [
        version
        for version, info in versions.items()
        if version != stored.secret.root and sealing.owns(stored.state.keyring, info.tag)
    ]


async def collect_strays(stores: Sequence[KeyringStore], stored: Stored) -> None:
    """Remove every blob that the head does not name from the replicas that answer."""
    for store in stores:
        try:
            await store.remove(sorted(await store.names() - stored.blobs().keys()))
        except Unavailable as error:
            _LOG.info("strays stay", extra={"fields": {"replica": store.name, "reason": error.message}})


async def repair_replica(name: str, *, replicas: Replicas, provider: RootKeyProvider) -> None:
    """Fill the lost replica `name` from the others; ConfigError if it is not configured or another keyring's.

    Repeatable. Servers may run meanwhile; their writers wait.
    """
    target = next((store for store in replicas.stores if store.name == name), None)
    if target is None or len(replicas.stores) == 1:
        names = ", ".join(store.name for store in replicas.stores)
        raise ConfigError(
            f"{name} is not one of several configured keyring replicas; nothing was changed",
            hint=f"configured: {names}",
        )
    others = Replicas([store for store in replicas.stores if store is not target])
    async with others.exclusive():
        survey = await replicas.survey()
        found = await target.read((MARKER, HEAD))
        if found[MARKER] is None:
            # A replica that an earlier repair left half filled is continued; any other content is refused.
            if not await target.initialise() and not await target.names():
                raise ConfigError(f"{name} has files that are not a keyring replica's; nothing was changed")
        elif marker_of(target, found[MARKER]) != survey.keyring:
            raise ConfigError(
                f"{name} is a replica of another keyring; nothing was changed",
                hint="move its files away, then repeat the repair",
            )
        stored = await newest(provider, survey, others.stores)
        await target.write(await gather_blobs(stored.blobs(), others.stores))
        if not await target.swap(found[HEAD], stored.head):
            raise Unavailable(f"the keyring replica {name} changed while it was refilled; repeat the repair")
        # The marker goes last: a half-filled replica without it is refused.
        await target.write({MARKER: encode_marker(survey.keyring)})
        await collect_strays([target], stored)


async def check(replicas: Replicas, provider: RootKeyProvider, stored: Stored) -> Sequence[Finding]:
    """Return findings on replicas, root versions and agreement; reads only."""
    found: list[Finding] = []
    if len(replicas.stores) == 1:
        text = "the keyring has a single replica: losing it loses every recording"
        found.append(_finding("warning", text, "add two on other disks or in buckets to keyring.replicas"))
    elif replicas.write_quorum == len(replicas.stores):
        text = "the keyring has two replicas: losing one loses nothing, but stops holds and shreds until it is repaired"
        found.append(_finding("warning", text, "add a third to keyring.replicas: then any one may be lost at any time"))
    for store in replicas.stores:
        found.append(await _check_replica(store, provider, stored))
        found += await store.check()
    try:
        waiting = await leftovers(provider, stored)
        others = len(await provider.versions()) - 1 - len(waiting)
    except VaultError as error:
        return (*found, _finding("error", error.message, error.hint))
    if waiting:
        text = f"{len(waiting)} root version(s) of this keyring wait to be destroyed"
        found.append(_finding("error", text, "restart the vault: opening the keyring destroys them"))
    else:
        found.append(_finding("ok", f"only the root version of epoch {stored.state.epoch} lives"))
    if others:
        text = f"{others} root version(s) at the provider do not belong to this keyring and are left as they are"
        found.append(_finding("warning", text))
    return found


async def _check_replica(store: KeyringStore, provider: RootKeyProvider, stored: Stored) -> Finding:
    """Open one replica alone, through the provider, and compare its tree with the live one."""
    try:
        present = await store.read((MARKER, HEAD))
        if marker_of(store, present[MARKER]) != stored.state.keyring:
            return _finding("error", f"the replica {store.name} belongs to another keyring")
        head = present[HEAD]
        if head != stored.head:
            text = f"the replica {store.name} does not hold the live head"
            return _finding("error", text, "the next write repairs it; if it was lost: callvault keys repair")
        found = await load(provider, [store], stored.state.keyring, head)
    except VaultError as error:
        return _finding("error", f"the replica {store.name} does not open: {error.message}", error.hint)
    if found.state != stored.state:
        return _finding("error", f"the replica {store.name} opens to another tree than the live one")
    return _finding("ok", f"the replica {store.name} opens to the live tree")


def _finding(level: str, message: str, hint: str | None = None) -> Finding:
    return Finding(level=level, subject=_SUBJECT, message=message, hint=hint)
