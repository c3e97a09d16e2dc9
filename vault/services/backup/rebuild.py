"""Restores lost objects from a backup, and rebuilds from objects the rows that the catalog lacks or has as unfinished.

A manifest has all that a row needs. A recording without a manifest was not finished: its row is rebuilt as open, from
the consecutive segments that can be decrypted, and ends like every interrupted call.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from vault.crypto.sealed import HEAD_BYTES, open_manifest, open_segment
from vault.errors import Conflict, FormatError, IntegrityError, Shredded
from vault.format.backup import BackedObject, BackedRecording, BackupManifest
from vault.format.manifest import Manifest, parse_manifest_object
from vault.format.names import ROOT, ManifestName, SegmentName, parse_name, tenant_prefix
from vault.format.notes import audio_end
from vault.format.segment import SegmentHeader, parse_segment
from vault.ids import NodeId, RecordingId, TenantId
from vault.model import EMPTY, MANIFEST_INDEX, Coordinate, Recording, RecordingState, SegmentRef
from vault.ports.keys import Keyring
from vault.ports.objects import ObjectInfo, ObjectMeta, ObjectStore
from vault.ports.progress import Progress
from vault.ports.recordings import OpenRecordingRows, RecordingLookup
from vault.ports.rescue import RescueRows
from vault.ports.tenants import TenantRows
from vault.services.backup.place import BackupPlace
from vault.services.ingest.open_rows import committed, own_tenant, rebuilt, stub_row
from vault.services.keys import is_pinned
from vault.services.recordings.dossiers import Coordinates
from vault.services.recordings.reading import Reader, lasted_of, of_ms
from vault.services.recordings.search import BlindIndex
from vault.services.surroundings import Surroundings

# -- lost objects -------------------------------------------------------------------------------------------------

_COPIES = 4


@dataclass(slots=True, kw_only=True)
class PutBack:
    """How many objects were present, restored, or without a key; `lost` ones are in neither place."""

    present: int = 0
    restored: int = 0
    restored_bytes: int = 0
    without_key: int = 0
    lost: list[str] = field(default_factory=list)


async def put_back(
    place: BackupPlace, manifest: BackupManifest, *, keyring: Keyring, store: ObjectStore, progress: Progress
) -> PutBack:
    """Restore the store's missing objects from the pool; repeatable."""
    outcome = PutBack()
    progress.begin("objects", manifest.pool_bytes)
    slots = asyncio.Semaphore(_COPIES)
    tenant: TenantId | None = None
    stored: Mapping[str, int] = {}
    async for recording in place.recordings(manifest):
        cohort = recording.coordinate.cohort
        if cohort.tenant != tenant:
            tenant = cohort.tenant
            stored = {info.name: info.size async for info in store.list(tenant_prefix(tenant))}
        missing = [item for item in recording.objects if stored.get(item.name) != item.size]
        outcome.present += len(recording.objects) - len(missing)
        if not keyring.derivable(recording.coordinate):
            outcome.without_key += len(missing)
        else:
            await _bring(place, store, recording, missing, keyring=keyring, slots=slots, outcome=outcome)
        progress.advance(sum(item.size for item in recording.objects))
    return outcome


async def _bring(
    place: BackupPlace,
    store: ObjectStore,
    recording: BackedRecording,
    missing: Sequence[BackedObject],
    *,
    keyring: Keyring,
    slots: asyncio.Semaphore,
    outcome: PutBack,
) -> None:
    held = is_pinned(keyring, recording.coordinate)

    async def bring(item: BackedObject) -> None:
        async with slots:
            try:
                data = await place.object(item)
            except IntegrityError:
                outcome.lost.append(item.name)
                return
            meta = ObjectMeta(
                retain_until=datetime.fromtimestamp(recording.retain_until_ms / 1000, UTC),
                retention_class=recording.retention_class,
                sha256=item.sha256,
                held=held,
            )
            await store.put(item.name, [data], meta=meta)
        outcome.restored += 1
        outcome.restored_bytes += item.size

    async with asyncio.TaskGroup() as group:
        for item in missing:
            group.create_task(bring(item))


# -- missing rows -------------------------------------------------------------------------------------------------

_PAGE = 500

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Rebuilt:
    """The result. `dead` recordings have neither row nor key; `unreadable` ones have a key that does not open them."""

    from_manifests: int = 0
    from_segments: int = 0
    completed: int = 0
    tenants: list[TenantId] = field(default_factory=list)
    dead: list[RecordingId] = field(default_factory=list)
    dead_names: list[str] = field(default_factory=list)
    unreadable: list[RecordingId] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Found:
    """The objects of one recording in the list of the store."""

    tenant: TenantId
    period: int
    recording: RecordingId
    manifest: ObjectInfo | None = None
    segments: list[tuple[SegmentName, ObjectInfo]] = field(default_factory=list)

    def holds(self, recording: RecordingId, coordinate: Coordinate) -> bool:
        """Tell whether a header with these values belongs to these objects' name."""
        place = (coordinate.cohort.tenant, coordinate.cohort.period)
        return recording == self.recording and place == (self.tenant, self.period)

    @property
    def names(self) -> list[str]:
        return [info.name for _, info in self.segments] + ([self.manifest.name] if self.manifest else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A segment that authenticated, with its place."""

    header: SegmentHeader
    ref: SegmentRef

    @property
    def end(self) -> int:
        return self.ref.offset + self.ref.length


class RebuildRows(RescueRows, OpenRecordingRows, RecordingLookup, TenantRows, Protocol):
    """The catalog methods that rebuilding needs."""


class Rebuilder:
    """Compares the store with the catalog once, and rebuilds missing rows."""

    def __init__(
        self,
        *,
        catalog: RebuildRows,
        keyring: Keyring,
        store: ObjectStore,
        coordinates: Coordinates,
        surroundings: Surroundings,
        progress: Progress,
        node: NodeId | None,
    ) -> None:
        self._catalog = catalog
        self._keyring = keyring
        self._node = node
        self._store = store
        self._reader = Reader(store=store)
        self._coordinates = coordinates
        self._index = BlindIndex(keyring=keyring)
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._progress = progress
        self._tenants: set[TenantId] = set()

    async def run(self) -> Rebuilt:
        """List all objects, rebuild missing rows, and return the result; repeatable."""
        self._progress.begin("objects against catalog", None)
        self._tenants = {tenant.id for tenant in await self._catalog.tenants()}
        outcome = Rebuilt()
        async for page in self._pages():
            states = await self._catalog.recording_states([found.recording for found in page])
            for found in page:
                state = states.get(found.recording)
                if state is None or state is RecordingState.OPEN:
                    await self._rebuild(found, outcome, known=state is not None)
            self._progress.advance(len(page))
        return outcome

    async def own(self, tenant: TenantId, outcome: Rebuilt) -> None:
        """Add a row for a tenant that only objects or pins name, so that its recordings have an owner."""
        if tenant not in self._tenants and await own_tenant(self._catalog, tenant, at=self._clock.now()):
            outcome.tenants.append(tenant)
        self._tenants.add(tenant)

    # -- listing ------------------------------------------------------------------------------------------------

    async def _pages(self) -> AsyncIterator[Sequence[_Found]]:
        page: list[_Found] = []
        current: _Found | None = None
        async for info in self._store.list(ROOT):
            try:
                place = parse_name(info.name)
            except FormatError:
                logger.warning("an object whose name this vault does not use brings no recording back")
                continue
            if current is None or current.recording != place.recording:
                if len(page) >= _PAGE:
                    yield page
                    page = []
                current = _Found(tenant=place.tenant, period=place.period, recording=place.recording)
                page.append(current)
            if isinstance(place, ManifestName):
                current.manifest = info
            else:
                current.segments.append((place, info))
        if page:
            yield page

    # -- rebuilding ---------------------------------------------------------------------------------------------

    async def _rebuild(self, found: _Found, outcome: Rebuilt, *, known: bool) -> None:
        try:
            if found.manifest is not None:
                await self._from_manifest(found, found.manifest, outcome, known=known)
            else:
                await self._from_segments(found, outcome, known=known)
        except Shredded:
            if not known:
                outcome.dead.append(found.recording)
                outcome.dead_names += found.names
        except (IntegrityError, Conflict) as error:
            logger.error(  # noqa: TRY400  # the fact, not the trace
                "a row could not be rebuilt from its objects; they are kept",
                extra={"fields": {"recording": found.recording, "error": error.code}},
            )
            outcome.unreadable.append(found.recording)

    async def _from_manifest(self, found: _Found, info: ObjectInfo, outcome: Rebuilt, *, known: bool) -> None:
        data = await self._store.get(info.name)
        header, _, _ = parse_manifest_object(data)
        if not found.holds(header.recording, header.coordinate):
            raise FormatError("a manifest is stored under another recording's name")
        key = self._keyring.derive(header.coordinate)
        manifest = open_manifest(key, header.recording, header.coordinate, data)
        objects = _refs(manifest, data)
        row = await self._row(manifest)
        head = await self._reader.wav_head(row, key, objects, audio_end(manifest.notes, manifest.length))
        row = dataclasses.replace(row, lasted=lasted_of(manifest, head=head))
        if not known:
            await self.own(found.tenant, outcome)
            told = rebuilt(row, source="manifest", size=manifest.length)
            try:
                await self._catalog.rebuild_recording(row, objects, audit=[told])
            except Conflict:
                # In this older catalog an empty recording still has the call key, which it freed when it ended. The
                # rebuilt row has the audio without the call key.
                nameless = dataclasses.replace(row, call_token=row.id)
                await self._catalog.rebuild_recording(nameless, objects, audit=[told])
            outcome.from_manifests += 1
            return
        await self._catalog.update_media(row)
        await self._catalog.finish_recording(
            row.id,
            state=row.state,
            reason=row.state_reason,
            ended_at=of_ms(manifest.ended_ms),
            stored_bytes=manifest.length,
            lasted=row.lasted,
            objects=objects,
            audit=[rebuilt(row, source="manifest", size=manifest.length)],
        )
        outcome.completed += 1

    async def _from_segments(self, found: _Found, outcome: Rebuilt, *, known: bool) -> None:
        chain = _chain(await self._opened(found))
        if not chain:
            raise IntegrityError("no segment of the recording opens as its first")
        refs, end = [each.ref for each in chain], chain[-1].end
        if known:
            before = [ref for ref in await self._catalog.segments(found.recording) if ref.index != MANIFEST_INDEX]
            if sum(ref.length for ref in before) < end:
                await self._catalog.add_segments(refs, stored_bytes=end)
                outcome.completed += 1
            return
        await self.own(found.tenant, outcome)
        row = await self._open_row(chain[0].header, end)
        await self._catalog.rebuild_recording(row, refs, audit=[rebuilt(row, source="segments", size=end)])
        outcome.from_segments += 1

    async def _opened(self, found: _Found) -> list[_Opened]:
        """Return the segments that open; Shredded if the recording has no key."""
        opened: list[_Opened] = []
        for place, info in found.segments:
            try:
                opened.append(await self._open(found, place, info))
            except IntegrityError as error:
                logger.warning(
                    "a segment does not open",
                    extra={"fields": {"recording": found.recording, "index": place.index, "error": error.code}},
                )
        return opened

    async def _open(self, found: _Found, place: SegmentName, info: ObjectInfo) -> _Opened:
        stated, _, _ = parse_segment(await self._store.get(info.name, length=HEAD_BYTES))
        if not found.holds(stated.recording, stated.coordinate) or stated.name != info.name:
            raise FormatError("a segment is stored under another name than its header gives")
        key = self._keyring.derive(stated.coordinate)
        data = await self._store.get(info.name)
        header, plaintext = open_segment(key, stated, data)
        ref = SegmentRef(
            recording=found.recording,
            index=place.index,
            attempt=place.attempt,
            name=info.name,
            offset=header.offset,
            length=len(plaintext),
            object_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        return _Opened(header=header, ref=ref)

    # -- rows ---------------------------------------------------------------------------------------------------

    async def _row(self, manifest: Manifest) -> Recording:
        """Return the row that a manifest describes."""
        copy = manifest.catalog
        if copy is None:
            row = await self._stub(manifest.recording, manifest.coordinate, of_ms(manifest.started_ms))
        else:
            row = self._index.restored(
                Recording(
                    id=manifest.recording,
                    tenant=manifest.tenant,
                    call_token=copy.call_key,
                    state=RecordingState.OPEN,
                    state_reason=None,
                    audio=manifest.coordinate,
                    metadata=copy.metadata,
                    media=manifest.media,
                    created_at=of_ms(copy.created_ms),
                    started_at=of_ms(manifest.started_ms),
                    ended_at=None,
                    retain_until=of_ms(copy.retain_until_ms),
                    retention_class=copy.retention_class,
                    stored_bytes=0,
                    sealed_facts=copy.sealed_facts,
                )
            )
        if manifest.reason == EMPTY:
            row = dataclasses.replace(row, call_token=row.id)  # the call key is free, or a later recording's
        return dataclasses.replace(
            committed(row, self._keyring),
            state=RecordingState(manifest.state),
            state_reason=manifest.reason,
            media=manifest.media,
            ended_at=of_ms(manifest.ended_ms),
            stored_bytes=manifest.length,
        )

    async def _open_row(self, header: SegmentHeader, stored: int) -> Recording:
        """Return the row of a call that was under way, from its segments' headers; this node ends it."""
        row = await self._stub(header.recording, header.coordinate, of_ms(header.created_ms))
        return dataclasses.replace(row, stored_bytes=stored, node=self._node)

    async def _stub(self, recording: RecordingId, audio: Coordinate, created: datetime) -> Recording:
        return await stub_row(
            recording,
            audio,
            created,
            coordinates=self._coordinates,
            keyring=self._keyring,
            surroundings=self._surroundings,
        )


def _chain(opened: Sequence[_Opened]) -> list[_Opened]:
    """Return consecutive segments from byte 0 on.

    After a crash an index can have several attempts of different lengths. An attempt that the next index continues is
    preferred to a longer one without a continuation.
    """
    by_index: dict[int, list[_Opened]] = {}
    for each in opened:
        by_index.setdefault(each.ref.index, []).append(each)
    chain: list[_Opened] = []
    end = 0
    while candidates := [each for each in by_index.get(len(chain), ()) if each.ref.offset == end]:
        following = {each.ref.offset for each in by_index.get(len(chain) + 1, ())}
        best = max(candidates, key=lambda each: (each.end in following, each.end))
        chain.append(best)
        end = best.end
    return chain


def _refs(manifest: Manifest, data: bytes) -> list[SegmentRef]:
    """Return the objects of a finished recording, including the manifest itself."""
    segments = [
        SegmentRef(
            recording=manifest.recording,
            index=each.index,
            attempt=each.name.rpartition("-")[2].removesuffix(".seg"),
            name=each.name,
            offset=each.offset,
            length=each.length,
            object_bytes=each.object_bytes,
            sha256=each.sha256,
        )
        for each in manifest.segments
    ]
    itself = SegmentRef(
        recording=manifest.recording,
        index=MANIFEST_INDEX,
        attempt="",
        name=manifest.name,
        offset=0,
        length=0,
        object_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return [*segments, itself]
