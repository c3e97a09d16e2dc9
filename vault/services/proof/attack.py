"""Searches copies of everything a vault ever wrote for sealed objects to attack and for keys to attack with."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from vault.crypto import chunked
from vault.crypto.backup import open_part
from vault.crypto.derive import Purpose, open_with_any
from vault.crypto.sealed import WINDOW_BYTES, Hit, Target, windows
from vault.errors import FormatError, IntegrityError, Invalid
from vault.format import backup, manifest, segment
from vault.format.codec import MAX_HEADER_BYTES
from vault.ids import RecordingId
from vault.model import DataKey
from vault.ports.progress import Progress

BLOCK_BYTES: Final = 16 << 10
LARGEST_BLOB: Final = 16 << 20
"""Larger files cannot be keyring files; they are still searched for objects and keys."""
_HEAD_BYTES: Final = 8 + MAX_HEADER_BYTES + chunked.PREFIX_BYTES
_STORE_HEADER_BYTES: Final = 512
_ROOT_KEYS: Final = "ROOT-KEYS"

_Parse = Callable[[bytes], tuple[segment.SegmentHeader | manifest.ManifestHeader, bytes, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A text to search: a file, or (`content`) its decrypted content. Equal texts are searched once.

    `size` counts its bytes without the blank blocks of `is_blank`.
    """

    origin: str
    size: int
    sealed: bool
    path: Path | None = None
    content: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """Return the whole text; Invalid if the file cannot be read."""
        if self.content is not None:
            return self.content
        assert self.path is not None
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise Invalid(f"{self.path} cannot be read: {error.strerror}") from error


@dataclass(slots=True, kw_only=True)
class Found:
    """The finds in the directories: one target for each recording and kind of object, and the texts to search.

    `root_keys` are directories of a file provider. They are copies of root keys, which must not be there.
    """

    files: int = 0
    size: int = 0
    opened_parts: int = 0
    targets: dict[tuple[RecordingId, Purpose], Target] = field(default_factory=dict)
    artefacts: list[Artefact] = field(default_factory=list)
    root_keys: list[Path] = field(default_factory=list)

    def blobs(self) -> Iterator[bytes]:
        """Yield the texts that could be files of a keyring."""
        for artefact in self.artefacts:
            if not artefact.sealed and artefact.size <= LARGEST_BLOB:
                yield artefact.read()


def is_blank(data: bytes | mmap.mmap, at: int) -> bool:
    """Tell whether the block at `at` and a window from its end are zeroes, so that no key can start in the block."""
    reach = data[at : at + BLOCK_BYTES + WINDOW_BYTES - 1]
    return reach.count(0) == len(reach)


def search(places: Sequence[Path], *, backup_keys: Sequence[DataKey]) -> Found:
    """Search the directories. Parts of backups are opened with today's backup keys and searched too.

    Invalid if a place or a file in it cannot be read, because an incomplete search proves nothing.
    """
    found = Found()
    seen: set[bytes] = set()
    for place in places:
        if not place.exists():
            raise Invalid(f"{place} does not exist; nothing was searched")
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_symlink() or not path.is_file():
                continue
            found.files += 1
            if path.name == _ROOT_KEYS:
                found.root_keys.append(path.parent)
            found.size += path.stat().st_size
            try:
                _look(path, found, seen, backup_keys)
            except OSError as error:
                raise Invalid(f"{path} cannot be read: {error.strerror}") from error
    # Files without objects and small files come first, because keys are most likely there.
    found.artefacts.sort(key=lambda each: (each.sealed, each.size, each.origin))
    return found


def _look(path: Path, found: Found, seen: set[bytes], backup_keys: Sequence[DataKey]) -> None:
    size = path.stat().st_size
    if not size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        digest = hashlib.sha256(data).digest()
        if digest in seen:
            return
        seen.add(digest)
        objects = [*_segments(data), *_manifests(data)]
        for target in objects:
            found.targets.setdefault((target.recording, target.purpose), target)
        for content in _parts(data, backup_keys):
            found.opened_parts += 1
            found.artefacts.append(
                Artefact(origin=f"{path} (decrypted)", size=len(content), sealed=False, content=content)
            )
        written = sum(min(BLOCK_BYTES, size - at) for at in range(0, size, BLOCK_BYTES) if not is_blank(data, at))
    found.artefacts.append(Artefact(origin=str(path), size=written, sealed=bool(objects), path=path))


def _places(data: mmap.mmap, magic: bytes) -> Iterator[int]:
    at = data.find(magic)
    while at >= 0:
        yield at
        at = data.find(magic, at + 1)


def _segments(data: mmap.mmap) -> Iterator[Target]:
    return _targets(data, segment.MAGIC, segment.parse_segment, Purpose.SEGMENT)


def _manifests(data: mmap.mmap) -> Iterator[Target]:
    return _targets(data, manifest.MAGIC, manifest.parse_manifest_object, Purpose.MANIFEST)


def _targets(data: mmap.mmap, magic: bytes, parse: _Parse, purpose: Purpose) -> Iterator[Target]:
    """Yield every object of one kind whose header and commitment are found, at any offset."""
    for at in _places(data, magic):
        head = data[at : at + _HEAD_BYTES]
        try:
            header, context, start = parse(head)
        except IntegrityError:
            continue
        prefix = head[start : start + chunked.PREFIX_BYTES]
        if len(prefix) == chunked.PREFIX_BYTES:
            yield Target(
                recording=header.recording,
                coordinate=header.coordinate,
                purpose=purpose,
                context=context,
                prefix=prefix,
            )


def _opened(header: backup.PartHeader, whole: bytes, key: DataKey) -> bytes:
    return open_part(key, header, whole)


def _parts(data: mmap.mmap, keys: Sequence[DataKey]) -> Iterator[bytes]:
    """Yield the decrypted content of backup parts, found as files or inside a file of an object store."""
    for at in (0, _STORE_HEADER_BYTES):
        if data[at : at + len(backup.MAGIC)] != backup.MAGIC:
            continue
        whole = data[at:]
        try:
            header, _, _ = backup.parse_part(whole)
            yield open_with_any(keys, partial(_opened, header, whole))
        except (FormatError, IntegrityError):
            continue


_PER_WORKER: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A window of an artefact that opens a recording."""

    target: Target
    origin: str
    offset: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAttack:
    """The extent of the attack: windows at `covered_bytes` of `total_bytes` offsets, against `targets` objects."""

    targets: int
    covered_bytes: int
    total_bytes: int
    strikes: tuple[Strike, ...]


async def attack(
    artefacts: Sequence[Artefact], targets: Sequence[Target], *, limit: int, progress: Progress, workers: int = 0
) -> WindowAttack:
    """Try windows in the order of the artefacts until `limit` bytes are covered."""
    total = sum(artefact.size for artefact in artefacts)
    progress.begin("windows", min(limit, total))
    strikes: list[Strike] = []
    covered = 0
    if targets and limit:
        workers = workers or os.cpu_count() or 1
        slots = asyncio.Semaphore(workers * _PER_WORKER)
        # A new interpreter for each worker: this process has threads, which a fork would copy in an undefined state.
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))

        async def work(piece: _Piece) -> None:
            try:
                task = asyncio.get_running_loop().run_in_executor(pool, _task, piece.data, targets, piece.starts)
                strikes.extend(piece.strike(hit, targets) for hit in await task)
            finally:
                slots.release()
            progress.advance(piece.starts)

        try:
            async with asyncio.TaskGroup() as group:
                for piece in _pieces(artefacts, limit):
                    await slots.acquire()
                    covered += piece.starts
                    group.create_task(work(piece))
        finally:
            pool.shutdown(cancel_futures=True)
    return WindowAttack(
        targets=len(targets),
        covered_bytes=covered,
        total_bytes=total,
        strikes=tuple(sorted(strikes, key=lambda strike: (strike.origin, strike.offset, strike.kind))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A run of `starts` window starts; `data` is one window longer, so that no key at its end is missed."""

    origin: str
    at: int
    data: bytes
    starts: int

    def strike(self, hit: Hit, targets: Sequence[Target]) -> Strike:
        return Strike(target=targets[hit.target], origin=self.origin, offset=self.at + hit.offset, kind=hit.kind)


def _pieces(artefacts: Sequence[Artefact], limit: int) -> Iterator[_Piece]:
    left = limit
    for artefact in artefacts:
        if left <= 0:
            return
        data = artefact.read()
        for at in range(0, len(data), BLOCK_BYTES):
            if is_blank(data, at):
                continue
            starts = min(BLOCK_BYTES, len(data) - at, left)
            if starts <= 0:
                return
            yield _Piece(origin=artefact.origin, at=at, data=data[at : at + starts + WINDOW_BYTES - 1], starts=starts)
            left -= starts


def _task(data: bytes, targets: Sequence[Target], starts: int) -> list[Hit]:
    return list(windows(data, targets, start=0, end=starts))
