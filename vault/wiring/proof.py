"""`prove`: attacks on a vault's own promises; they write nothing to the vault."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vault.config import Config
from vault.crypto.derive import Purpose
from vault.crypto.sealed import Target
from vault.errors import IntegrityError, NotFound, Shredded
from vault.format.backup import POOL, BackupManifest
from vault.ids import RecordingId
from vault.keystore import attack as adversary
from vault.keystore.attack import OldKeyrings
from vault.keystore.keyring import Keyring
from vault.keystore.root.file import FileRootKeys
from vault.model import MANIFEST_INDEX, Recording, RecordingState
from vault.ports.catalog import Catalog
from vault.ports.objects import ObjectStore
from vault.ports.progress import Progress
from vault.ports.recordings import RecordingQuery
from vault.ports.time import Clock, Entropy
from vault.services.proof import attack as windows
from vault.services.proof.attack import Found, Strike, WindowAttack, search
from vault.services.recordings.reading import Reader
from vault.storage.catalog.catalog import SqlCatalog, open_catalog
from vault.storage.objects.prefixed import PrefixedObjectStore
from vault.threads import in_thread
from vault.wiring.adapters import SystemClock, catalog_place, observe_keyring, open_store, root_keys
from vault.wiring.backup import Backups, open_backups

_PAGE = 500
_MOST_TARGETS = 64


# -- erasure ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """One recording found in the artefacts: its recorded state, what opened it, and `alarm` if the two disagree.

    `state` is the catalog's, None if it does not know the recording. `live`: today's keyring opens it. `old`: a keyring
    found in the artefacts opens it. `strikes`: a key is in clear in an artefact.
    """

    recording: RecordingId
    state: str | None
    certificates: tuple[str, ...]
    live: bool
    old: bool
    strikes: tuple[Strike, ...]
    alarm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureProof:
    """The result of the attack; it proves something only about what it covered."""

    found: Found
    old: OldKeyrings
    windows: WindowAttack
    recordings: tuple[Attacked, ...]

    @property
    def alarms(self) -> Sequence[Attacked]:
        """Return the recordings whose recorded state the attack contradicts."""
        return [each for each in self.recordings if each.alarm]


async def prove_erasure(
    config: Config,
    places: Sequence[Path],
    *,
    recording: RecordingId | None,
    window_bytes: int,
    progress: Progress,
    clock: Clock | None = None,
    entropy: Entropy = os.urandom,
) -> ErasureProof:
    """Attack every recording found in the artefacts with all that a thief of them and of today's keys would have."""
    clock = clock or SystemClock()
    keyring = await observe_keyring(config, clock, entropy)
    progress.begin("artefacts", None)
    found = await in_thread(search, places, backup_keys=keyring.backup_keys)
    targets = _by_recording(found, recording)
    progress.begin("old keyrings", None)
    copies = [FileRootKeys(path, clock=clock, entropy=entropy) for path in found.root_keys]
    old = await adversary.attack([root_keys(config, clock, entropy), *copies], found.blobs())
    states = await _states(config, clock, list(targets))
    await keyring.refresh()
    chosen = _window_targets(targets, keyring)
    tried = await windows.attack(found.artefacts, chosen, limit=window_bytes, progress=progress)
    # The attack takes longer than the lease of one look at the keyring.
    await keyring.refresh()
    return ErasureProof(
        found=found,
        old=old,
        windows=tried,
        recordings=tuple(
            _attacked(identifier, aims, states.get(identifier), keyring=keyring, old=old, tried=tried)
            for identifier, aims in targets.items()
        ),
    )


def _by_recording(found: Found, recording: RecordingId | None) -> dict[RecordingId, list[Target]]:
    targets: dict[RecordingId, list[Target]] = {}
    for (identifier, _), target in sorted(found.targets.items()):
        if recording in (None, identifier):
            targets.setdefault(identifier, []).append(target)
    if not targets and recording is not None:
        raise NotFound(
            f"no sealed object of {recording} is in the artefacts: there is nothing to attack",
            hint="hand in copies of the object store, or a backup's pool, from when the recording lived",
        )
    return targets


def _window_targets(targets: dict[RecordingId, list[Target]], keyring: Keyring) -> list[Target]:
    """Return one object of each recording, a segment if there is one; those that should be gone come first."""
    chosen = [min(aims, key=lambda aim: aim.purpose is not Purpose.SEGMENT) for aims in targets.values()]
    return sorted(chosen, key=lambda aim: keyring.derivable(aim.coordinate))[:_MOST_TARGETS]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    state: RecordingState
    certificates: tuple[str, ...]


async def _states(config: Config, clock: Clock, recordings: Sequence[RecordingId]) -> dict[RecordingId, _Said]:
    """Return what the catalog says of these recordings; nothing if there is no catalog."""
    catalog = open_catalog(catalog_place(config), clock=clock)
    said: dict[RecordingId, _Said] = {}
    try:
        if await catalog.is_blank():
            return {}
        await catalog.check_schema()
        for identifier in recordings:
            try:
                row = await catalog.recording(identifier)
            except NotFound:
                continue
            issued = await catalog.certificates(recording=identifier)
            said[identifier] = _Said(state=row.state, certificates=tuple(each.status.value for each in issued))
    finally:
        await catalog.close()
    return said


def _attacked(
    recording: RecordingId,
    aims: Sequence[Target],
    said: _Said | None,
    *,
    keyring: Keyring,
    old: OldKeyrings,
    tried: WindowAttack,
) -> Attacked:
    live = any(_live(aim, keyring) for aim in aims)
    past = any(aim.opens(key) for aim in aims for key in old.keys(aim.coordinate))
    strikes = tuple(strike for strike in tried.strikes if strike.target.recording == recording)
    exists = any(keyring.derivable(aim.coordinate) for aim in aims)
    shredded = not exists or (said is not None and said.state is RecordingState.SHREDDED)
    alarm = ""
    if strikes:
        alarm = "a key lies in clear in an artefact"
    elif shredded and live:
        alarm = "shredded, and today's keyring opens it"
    elif shredded and past:
        alarm = "shredded, and a keyring in the artefacts opens it"
    elif not shredded and not live:
        alarm = "not shredded, and today's keyring does not open it"
    return Attacked(
        recording=recording,
        state=None if said is None else said.state.value,
        certificates=() if said is None else said.certificates,
        live=live,
        old=past,
        strikes=strikes,
        alarm=alarm,
    )


def _live(aim: Target, keyring: Keyring) -> bool:
    try:
        return aim.opens(keyring.derive(aim.coordinate))
    except Shredded:
        return False


# -- restore ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class RestoreProof:
    """What a restore of the backup would give today; every byte of the `readable` recordings was read and hashed."""

    manifest: BackupManifest
    readable: int = 0
    readable_bytes: int = 0
    unfinished: int = 0
    gone: int = 0
    certified: int = 0
    problems: list[str] = field(default_factory=list)


async def prove_restore(
    config: Config,
    destination: str,
    backup: str | None,
    *,
    progress: Progress,
    clock: Clock | None = None,
    entropy: Entropy = os.urandom,
) -> RestoreProof:
    """Load the backup's catalog into a scratch directory and read every surviving recording from the backup.

    Nothing is written to the vault, and the scratch directory is removed afterwards. A backup without objects is read
    from the vault's own store.
    """
    clock = clock or SystemClock()
    async with open_backups(config, destination, clock=clock, entropy=entropy) as backups:
        manifest = await backups.place.manifest(backup or await backups.place.newest())
        with tempfile.TemporaryDirectory(prefix="callvault-prove-") as scratch:
            catalog = open_catalog(Path(scratch) / "catalog.db", clock=clock)
            own = None if manifest.pool_objects is not None else await open_store(config)
            try:
                progress.begin("catalog", None)
                await catalog.load(manifest.schema_revision, backups.place.tables(manifest), settings={})
                store = own or PrefixedObjectStore(backups.place.store, POOL)
                return await _read_all(catalog, store, backups, manifest, progress)
            finally:
                await catalog.close()
                if own is not None:
                    await own.close()


async def _read_all(
    catalog: SqlCatalog, store: ObjectStore, backups: Backups, manifest: BackupManifest, progress: Progress
) -> RestoreProof:
    proof = RestoreProof(manifest=manifest)
    progress.begin("recordings", manifest.counts.get("recordings", 0))
    reader = Reader(store=store)
    async for row in _rows(catalog):
        try:
            await _judge(row, catalog, reader, backups.keyring, proof)
        except IntegrityError as error:
            proof.problems.append(f"{row.id}: {error.message}")
        progress.advance(1)
    return proof


async def _rows(catalog: Catalog) -> AsyncIterator[Recording]:
    before: RecordingId | None = None
    while page := await catalog.recordings(RecordingQuery(before=before, limit=_PAGE)):
        for row in page:
            yield row
        before = page[-1].id


async def _judge(row: Recording, catalog: Catalog, reader: Reader, keyring: Keyring, proof: RestoreProof) -> None:
    try:
        key = keyring.derive(row.audio)
    except Shredded:
        proof.gone += 1
        proof.certified += row.certificate_id is not None
        return
    if row.state is RecordingState.SHREDDED:
        proof.problems.append(f"{row.id}: the backup says it was shredded, and today's keyring derives its key")
        return
    objects = await catalog.segments(row.id)
    digest = hashlib.sha256()
    length = sum(ref.length for ref in objects if ref.index != MANIFEST_INDEX)
    async for piece in reader.read(row, key, objects, 0, length):
        digest.update(piece)
    if row.state is RecordingState.OPEN:
        proof.unfinished += 1
    else:
        sealed = await reader.manifest(row, key, objects)
        if (sealed.length, sealed.sha256) != (length, digest.hexdigest()):
            proof.problems.append(f"{row.id}: what was read is not what its manifest says was recorded")
            return
        proof.readable += 1
    proof.readable_bytes += length
