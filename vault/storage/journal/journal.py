"""The journal adapter: a group-committed, encrypted log in one local directory, and its replay after a crash."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vault.crypto.journal import RecordKey
from vault.disk import lock_file, try_lock
from vault.errors import (
    ConfigError,
    DiskFull,
    FormatError,
    InUse,
    JournalFull,
    Shredded,
    Tampered,
    Truncated,
    Unavailable,
    size_text,
)
from vault.format.journal import (
    DATA,
    HEADER_BYTES,
    MAX_FILE_BYTES,
    OPEN,
    PREFIX_BYTES,
    PREFIX_PATTERN,
    TAG_BYTES,
    Opening,
    Prefix,
    decode_header,
    decode_opening,
    decode_prefix,
    parse_file_name,
)
from vault.model import Coordinate, DataKey
from vault.places import unusable
from vault.ports.journal import JournalOpening, JournalUsage, ReplayedRecording
from vault.ports.time import Clock, Entropy
from vault.storage.journal.commit import Committer
from vault.storage.journal.entry import FileEntry, Run
from vault.storage.journal.file import Disk, JournalFile, node_of
from vault.telemetry import Metrics
from vault.threads import in_thread

# -- replay after a crash -----------------------------------------------------------------------------------------
# Finds, in the files of earlier processes, every acknowledged byte that is still needed.
#
# A crash leaves a tail that fails framing or authentication, without a valid record after it. If a valid record follows
# an invalid one, the file was damaged. Then the contiguous bytes are still returned, and the file is kept for
# inspection. Damage to one recording's records does not affect other recordings.

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Track:
    """One recording across files: contiguous `runs`, and its end if it was found after them."""

    coordinate: Coordinate
    recording: str
    key: DataKey | None = field(repr=False)
    """None if it is shredded or already stored; its records are skipped."""
    runs: list[Run] = field(default_factory=list)
    ended: str | None = None
    end_file: JournalFile | None = None
    cut: bool = False
    """Whether damage took some of its records."""

    def keep_from(self, offset: int) -> None:
        """Drop the bytes before `offset`, because the object store has them."""
        self.runs = [run.between(offset, run.end) for run in self.runs if run.end > offset or run is self.runs[-1]]

    def keep_until(self, offset: int) -> None:
        """Drop the bytes after `offset`, which were never acknowledged."""
        self.runs = [run.between(run.base, offset) for run in self.runs if run.base <= offset]


@dataclass(slots=True, kw_only=True)
class _Handle:
    track: Track
    key: RecordKey | None
    run: Run | None
    """None once its records no longer continue the recording."""
    next_seq: int = 1


class Replay:
    """One pass over the files in creation order; blocking, for a worker thread.

    Unavailable if a key or a file cannot be read now, ConfigError for files of an unknown format. Both leave the disk
    unchanged.
    """

    def __init__(
        self, files: Sequence[JournalFile], *, keys: Callable[[Coordinate], DataKey], skip: Callable[[str], bool]
    ) -> None:
        self._files = files
        self._numbers = frozenset(file.number for file in files)
        self._keys = keys
        self._skip = skip
        self._tracks: dict[str, Track] = {}

    def run(self) -> Sequence[Track]:
        """Return every recording found, except those that are shredded or skipped."""
        for file in self._files:
            try:
                data = file.load()
            except OSError as error:
                raise Unavailable(f"journal file {file.number} cannot be read") from error
            _FileScan(self, file, data).run()
            if file.damaged:
                logger.error(
                    "a journal file is damaged; it is set aside once what was recovered from it is stored",
                    extra={"fields": {"file": file.number}},
                )
        return list(self._tracks.values())

    def track(self, opening: Opening) -> Track:
        """Return the recording's track, a new one without runs; FormatError if it was seen with another coordinate."""
        track = self._tracks.get(opening.recording)
        if track is None:
            track = Track(recording=opening.recording, coordinate=opening.coordinate, key=self._key(opening))
        if track.coordinate != opening.coordinate:
            raise FormatError("a recording has two coordinates")
        return track

    def _key(self, opening: Opening) -> DataKey | None:
        if self._skip(opening.recording):
            return None
        try:
            return self._keys(opening.coordinate)
        except Shredded:
            logger.warning(
                "journal records of a shredded recording were dropped",
                extra={"fields": {"recording": opening.recording}},
            )
            return None

    def place(self, track: Track, opening: Opening, run: Run) -> bool:
        """Let `run` continue its recording; False if bytes before it are missing that were never released."""
        track.keep_from(opening.released)
        if track.runs and (last := track.runs[-1]).end < opening.offset and opening.released < opening.offset:
            between = range(last.file.number + 1, run.file.number)
            if all(number in self._numbers for number in between):
                # No file between them is gone, so no byte was released. The bytes before the gap are the recording, and
                # the others stay on disk for inspection.
                run.file.damaged = True
                return False
            # A file is removed only when all its bytes are released, and bytes are released from the front. So
            # everything before the gap is in the object store.
            for old in track.runs if track.cut else ():
                old.file.damaged = True
            track.runs = []
        track.keep_until(opening.offset)
        if opening.released == opening.offset:
            track.runs = []
        track.runs.append(run)
        self._tracks[track.recording] = track
        track.ended = track.end_file = None
        return True


class _FileScan:
    """The records of one file."""

    def __init__(self, replay: Replay, file: JournalFile, data: bytes) -> None:
        self._replay = replay
        self._file = file
        self._data = data
        self._limit = len(data.rstrip(b"\0"))  # the bytes after it were allocated and never written
        self._handles: dict[int, _Handle] = {}

    def run(self) -> None:
        if not self._limit:
            return
        try:
            self._file.salt = decode_header(self._data).salt
        except Truncated:
            # Its first commit never finished, or the header was changed: without the salt no record opens.
            self._file.damaged = self._limit > HEADER_BYTES
            return
        except FormatError as error:
            raise ConfigError(
                f"journal file {self._file.number}: {error.message}",
                hint="start the version of the vault that wrote it",
            ) from error
        position = HEADER_BYTES
        while position < self._limit:
            prefix = decode_prefix(self._data, position)
            if prefix is None or not self._expected(prefix) or not self._take(prefix, position):
                found = self._resync(position)
                if found is None:
                    logger.info(
                        "a journal file ends in a commit that was not finished",
                        extra={"fields": {"file": self._file.number, "position": position}},
                    )
                    return
                self._file.damaged = True
                prefix, position = found
            position += PREFIX_BYTES + prefix.length

    def _expected(self, prefix: Prefix) -> bool:
        handle = self._handles.get(prefix.handle)
        if prefix.kind == OPEN:
            return handle is None
        return handle is not None and prefix.seq == handle.next_seq

    def _resync(self, position: int) -> tuple[Prefix, int] | None:
        """Return the next record from `position` on that authenticates, wherever it starts."""
        for match in PREFIX_PATTERN.finditer(self._data, position, self._limit):
            prefix = decode_prefix(self._data, match.start())
            if prefix is None:
                continue
            handle = self._handles.get(prefix.handle)
            if handle is None and prefix.kind != OPEN:
                continue
            if handle is not None and (handle.key is None or prefix.seq < handle.next_seq):
                continue
            if self._take(prefix, match.start()):
                return prefix, match.start()
        return None

    def _take(self, prefix: Prefix, position: int) -> bool:
        """Account for one record; False if it does not authenticate."""
        start = position + PREFIX_BYTES
        body = self._data[start : start + prefix.length]
        if prefix.kind == OPEN:
            return self._open(prefix, body)
        handle = self._handles[prefix.handle]
        if handle.key is not None:
            try:
                plaintext = handle.key.open(prefix.kind, prefix.seq, body)
            except Tampered:
                return False
            if prefix.seq != handle.next_seq:
                handle.track.cut = True
                handle.run = None
            self._add(handle, prefix, start, plaintext)
        handle.next_seq = prefix.seq + 1
        return True

    def _open(self, prefix: Prefix, body: bytes) -> bool:
        try:
            opening = decode_opening(body[:-TAG_BYTES])
            track = self._replay.track(opening)
            if track.key is None:
                self._handles[prefix.handle] = _Handle(track=track, key=None, run=None)
                return True
            key = RecordKey(track.key, salt=self._file.salt, handle=prefix.handle)
            key.check_opening(body)
        except (FormatError, Tampered):
            return False
        run = Run(self._file, key, base=opening.offset)
        placed = self._replay.place(track, opening, run)
        self._handles[prefix.handle] = _Handle(track=track, key=key, run=run if placed else None)
        return True

    def _add(self, handle: _Handle, prefix: Prefix, start: int, plaintext: bytes) -> None:
        track, run = handle.track, handle.run
        if run is None or track.runs[-1] is not run:
            return
        if prefix.kind == DATA:
            run.positions.append(start)
            run.ends.append(run.end - run.base + len(plaintext))
            return
        handle.run = None
        track.end_file = self._file
        track.ended = plaintext.decode(errors="replace")


# -- appending and reading ----------------------------------------------------------------------------------------

_LOCK_NAME: Final = "journal.lock"
_FILES_PER_BOUND: Final = 4
_DISK_CHECK_SECONDS: Final = 1.0
_ADMISSION_SECONDS: Final = 0.5
"""How long an answer of the disk counts for a recording that was admitted by it, in seconds.

If the journal refused an admitted recording, a row without audio would use up its call key.
"""


class FileJournal:
    """Implements `vault.ports.journal.Journal` in `directory`, which exists and which no other process uses.

    `file_bytes` is allocated at a time, but never more than a quarter of `bytes_bound`, so that released space comes
    back in time. No recording starts while the file system has less than `disk_reserve_bytes` free. An entry has at
    most `undurable_bytes` in flight before `writable` waits. While all entries together have more than
    `undurable_bound`, each waits for its own bytes. ConfigError if the directory is absent or in use.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        entropy: Entropy = os.urandom,
        metrics: Metrics | None = None,
        bytes_bound: int = 4 << 30,
        file_bytes: int = 64 << 20,
        disk_reserve_bytes: int = 0,
        commit_interval_seconds: float = 0.005,
        undurable_bytes: int = 256 << 10,
        undurable_bound: int = 256 << 20,
        disk: Disk | None = None,
    ) -> None:
        file_bytes = min(file_bytes, bytes_bound // _FILES_PER_BOUND)
        if not 2 * HEADER_BYTES <= file_bytes <= MAX_FILE_BYTES:
            raise ConfigError("journal.file_bytes is at most 1GiB, and journal.max_bytes at least four times as much")
        self._directory = directory
        self._clock = clock
        self._bytes_bound = bytes_bound
        self._reserve = disk_reserve_bytes
        self._undurable_bytes = undurable_bytes
        self._disk = disk or Disk()
        self._disk_checked_at = float("-inf")
        self._free = 0
        self._opened = False
        self.damaged = False
        self._replayed = False
        self._lock_fd = _lock(directory)
        try:
            self.node = node_of(directory, at=clock.now(), entropy=entropy)
            old, last_number = self._list()
        except BaseException:
            os.close(self._lock_fd)
            raise
        self._old = tuple(old)
        self._committer = Committer(
            directory,
            clock=clock,
            entropy=entropy,
            metrics=metrics,
            disk=self._disk,
            bytes_bound=bytes_bound,
            file_bytes=file_bytes,
            commit_interval_seconds=commit_interval_seconds,
            next_number=last_number + 1,
            undurable_bound=undurable_bound,
        )
        self._committer.files.extend(old)

    def _list(self) -> tuple[list[JournalFile], int]:
        """Return the files of earlier incarnations in creation order, and the highest number ever seen."""
        files = []
        last_number = 0
        for path in journal_files(self._directory):
            parsed = parse_file_name(path.name)
            assert parsed is not None
            number, set_aside = parsed
            last_number = max(last_number, number)
            if not set_aside:
                files.append(JournalFile.existing(path, disk=self._disk, number=number))
        return files, last_number

    async def replay(
        self, keys: Callable[[Coordinate], DataKey], *, skip: Callable[[str], bool]
    ) -> Sequence[ReplayedRecording]:
        """Read the files of earlier processes; may be repeated after Unavailable."""
        if self._opened or self._replayed:
            raise ValueError("replay comes once, before the first open")
        tracks = await in_thread(Replay(self._old, keys=keys, skip=skip).run)
        self._replayed = True
        self.damaged = any(file.damaged for file in self._old)
        found = [self._replayed_recording(track) for track in tracks]
        for file in self._old:
            self._committer.reap(file)
        self._old = ()
        return found

    def _replayed_recording(self, track: Track) -> ReplayedRecording:
        assert track.key is not None
        opening = JournalOpening(recording=track.recording, coordinate=track.coordinate)
        entry = FileEntry(
            opening, track.key, offset=0, committer=self._committer, undurable_bound=self._undurable_bytes
        )
        entry.adopt(tuple(track.runs), ended=track.ended, end_file=track.end_file)
        return ReplayedRecording(
            opening=opening,
            first_offset=track.runs[0].base,
            durable=entry.durable,
            ended=track.ended,
            entry=entry,
        )

    def open(self, opening: JournalOpening, key: DataKey, *, offset: int = 0) -> FileEntry:
        """Start or continue a recording; its first piece or its end writes the OPEN record."""
        refusal = self._disk_refusal(_DISK_CHECK_SECONDS) or (None if offset else self._bound_refusal())
        if refusal is not None:
            raise refusal
        if self._committer.closed:
            raise _closed()
        self._opened = True
        return FileEntry(opening, key, offset=offset, committer=self._committer, undurable_bound=self._undurable_bytes)

    def refusal(self) -> Unavailable | None:
        """Return why a new recording would be refused now, or None."""
        if self._committer.closed:
            return _closed()
        return self._bound_refusal() or self._disk_refusal(_ADMISSION_SECONDS)

    def _bound_refusal(self) -> JournalFull | None:
        used, bound = self._committer.bytes_used(), self._bytes_bound
        if used * 5 < bound * 4:
            return None
        return JournalFull(
            f"the journal has {size_text(used)} of the {size_text(bound)} that journal.max_bytes permits; from four "
            "fifths on no recording can begin, and those under way continue",
            hint="the object store is slow or down, or the bound is too small",
            retry_after_seconds=10,
            cause="journal",
        )

    def _disk_refusal(self, fresh: float) -> Unavailable | None:
        """Return why the disk has no room for a new recording; an answer less than `fresh` seconds old is reused."""
        needed = self._committer.next_allocation
        if not self._reserve and not needed:
            return None
        unanswered = self._look_at_disk(fresh)
        if unanswered is not None:
            return unanswered
        if self._free < self._reserve:
            wants = f"journal.disk_reserve keeps {size_text(self._reserve)} for recordings under way"
        elif self._free < needed:
            wants = f"its next file takes {size_text(needed)} at once (journal.file_bytes)"
        else:
            return None
        return DiskFull(
            f"the journal's disk has {size_text(self._free)} free, and {wants}: no recording begins",
            hint="free space, or give the journal a larger disk of its own",
            retry_after_seconds=10,
            cause="disk",
        )

    def _look_at_disk(self, fresh: float) -> Unavailable | None:
        """Read the free space of the disk, unless the last answer is less than `fresh` seconds old."""
        now = self._clock.monotonic()
        if now - self._disk_checked_at < fresh:
            return None
        try:
            self._free = self._disk.free_bytes(self._directory)
        except OSError as error:
            return Unavailable(
                f"the journal's directory {self._directory} does not answer: {error.strerror or 'I/O error'}",
                hint="check that its disk is mounted and the directory exists",
                cause="disk",
            )
        self._disk_checked_at = now
        return None

    def usage(self) -> JournalUsage:
        """Return the bytes that records take, the bound, and the number of files."""
        return JournalUsage(
            bytes_used=self._committer.bytes_used(),
            bytes_bound=self._bytes_bound,
            files=len(self._committer.files),
        )

    def filled(self) -> float:
        """Return the used fraction of the journal's bound, or of the disk above the reserve, whichever is larger."""
        if self._look_at_disk(_DISK_CHECK_SECONDS) is not None:
            return 1.0
        left = self._free - self._reserve
        if left <= 0:
            return 1.0
        most = min(self._bytes_bound, sum(file.allocated for file in self._committer.files) + left)
        return min(self._committer.bytes_used() / most, 1.0)

    @property
    def undurable(self) -> int:
        """Bytes of records that are not durable yet."""
        return self._committer.undurable

    def tell(self, changed: Callable[[int], None]) -> None:
        """Call `changed` with `undurable` whenever it passes the bound, and after each commit."""
        self._committer.changed = changed

    async def close(self) -> None:
        """Commit what is queued and close; a second call does nothing."""
        if self._lock_fd < 0:
            return
        lock_fd, self._lock_fd = self._lock_fd, -1
        try:
            await self._committer.close(keep=self._old)
        finally:
            os.close(lock_fd)


def _closed() -> Unavailable:
    return Unavailable("the journal is closed, because the server ends", cause="journal")


def journal_files(directory: Path) -> Sequence[Path]:
    """Return the journal files in a directory in creation order, those set aside as damaged included."""
    return sorted(path for path in directory.iterdir() if parse_file_name(path.name) is not None)


def in_use(directory: Path) -> bool:
    """Tell whether a process has the journal open now; makes and changes nothing. ConfigError."""
    try:
        refuse_in_use(directory)
    except InUse:
        return True
    return False


def refuse_in_use(directory: Path) -> None:
    """Raise InUse, which names the process, if one has the journal open now; makes and changes nothing. ConfigError."""
    try:
        fd = os.open(directory / _LOCK_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable(directory / _LOCK_NAME, error, setting="journal.path") from error
    try:
        # A shared lock, released at once, conflicts only with the owner's.
        if not try_lock(fd, shared=True):
            raise _taken(directory)
    finally:
        os.close(fd)


def _lock(directory: Path) -> int:
    try:
        fd = lock_file(directory / _LOCK_NAME)
    except OSError as error:
        raise unusable(directory, error, setting="journal.path") from error
    if fd is None:
        raise _taken(directory)
    _sign(fd)
    return fd


def _taken(directory: Path) -> InUse:
    """Return the error for a journal that another process has open, which it names from the lock file."""
    said = (directory / _LOCK_NAME).read_bytes()[:20].strip()
    who, end = ("process " + said.decode(), f"kill {said.decode()}") if said.isdigit() else ("a process", "its unit")
    return InUse(
        f"journal.path: {who} has {directory} open: a callvault serve on the same data, or a command that works on it; "
        "nothing was started or changed",
        hint=f"is the vault served already? callvault doctor shows it. To start again, end that process first ({end}); "
        "for several processes, callvault serve --workers N",
    )


def _sign(fd: int) -> None:
    """Write this process's id into the lock file, for others' messages; a full disk is ignored."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
