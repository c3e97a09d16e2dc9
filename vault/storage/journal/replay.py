"""Finds in the files of earlier incarnations every byte that was acknowledged and is still needed.

A crash leaves a tail that fails framing or authentication, with no valid record behind it. A record that authenticates
behind one that does not shows that the file was damaged. Contiguous bytes are still returned then, and the file is kept
for inspection. Damage to one recording's records does not affect other recordings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vault.crypto.journal import RecordKey
from vault.errors import ConfigError, FormatError, Shredded, Tampered, Truncated, Unavailable
from vault.format.journal import (
    DATA,
    HEADER_BYTES,
    OPEN,
    PREFIX_BYTES,
    PREFIX_PATTERN,
    TAG_BYTES,
    Opening,
    Prefix,
    decode_header,
    decode_opening,
    decode_prefix,
)
from vault.model import Coordinate, DataKey
from vault.storage.journal.entry import Run
from vault.storage.journal.file import JournalFile

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
        """Drop the bytes before `offset`, which the object store has."""
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

    Unavailable if a key or a file cannot be read now, ConfigError for files of a format this code does not know. After
    either nothing on disk has changed.
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
        """Let `run` continue its recording; False if bytes between are missing that were never released."""
        track.keep_from(opening.released)
        if track.runs and (last := track.runs[-1]).end < opening.offset and opening.released < opening.offset:
            between = range(last.file.number + 1, run.file.number)
            if all(number in self._numbers for number in between):
                # No file between them is gone, so nothing was released: the bytes before the gap are the recording, and
                # the rest stays on disk for inspection.
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
        self._limit = len(data.rstrip(b"\0"))  # beyond lies what was allocated and never written
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
