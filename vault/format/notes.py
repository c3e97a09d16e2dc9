"""Notes: events of a call beside its audio, each with one canonical encoding (docs/format.md, "Notes").

A note has a plaintext offset in the recording: it happened before the byte at that offset.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from vault.errors import FormatError
from vault.format import codec
from vault.format.segment import check_number

MAX_DIGIT: Final = 16
MAX_MEDIA_TYPE: Final = 200
MAX_DOCUMENT_BYTES: Final = 256 << 10

_TONE: Final = [str, int, int, str]
_ETAG: Final = re.compile(r"[0-9a-f]{32}(?:-[1-9]\d{0,4})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """At `offset`, `missing_ms` milliseconds of the call did not arrive."""

    offset: int
    at_ms: int
    missing_ms: int

    def __post_init__(self) -> None:
        _check_place(self.offset, self.at_ms)
        if not check_number(self.missing_ms, "gap"):
            raise FormatError("a gap of no duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """At `offset` the recording was paused: `dropped` bytes arrived in `missing_ms` milliseconds and were discarded.

    `lasting` is true while the pause lasts; `at_ms` is then when it last began.
    """

    offset: int
    at_ms: int
    missing_ms: int = 0
    dropped: int = 0
    lasting: bool = True

    def __post_init__(self) -> None:
        _check_place(self.offset, self.at_ms)
        check_number(self.missing_ms, "pause")
        check_number(self.dropped, "dropped bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tone:
    """A telephone key (DTMF) was pressed at `offset`."""

    offset: int
    at_ms: int
    digit: str = field(repr=False)
    duration_ms: int | None = None

    def __post_init__(self) -> None:
        _check_place(self.offset, self.at_ms)
        if not 0 < len(self.digit) <= MAX_DIGIT:
            raise FormatError("a key's name is 1 to 16 characters")
        if self.duration_ms is not None:
            check_number(self.duration_ms, "duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document about the call as it was sent, received when the recording had `offset` bytes."""

    offset: int
    at_ms: int
    media_type: str
    content: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_place(self.offset, self.at_ms)
        if not 0 < len(self.media_type) <= MAX_MEDIA_TYPE or not 0 < len(self.content) <= MAX_DOCUMENT_BYTES:
            raise FormatError("a document has a media type and 1 byte to 256 KiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """From `offset` on the bytes are not audio: they are acknowledged parts of an upload that its completion left out.

    `pieces` are (part number, number of bytes), in the order of the bytes. Part 0 is the rest of an interrupted
    completion. A recording has at most one such note. Without pieces nothing was left out.
    """

    offset: int
    at_ms: int
    pieces: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        _check_place(self.offset, self.at_ms)
        for number, size in self.pieces:
            check_number(number, "part number")
            if not check_number(size, "part kept aside"):
                raise FormatError("a part without a byte was kept aside")


@dataclass(frozen=True, slots=True, kw_only=True)
class Etag:
    """The ETag that the S3 client received for the whole audio, which is the `offset` bytes before this note.

    It is 32 hex digits; for an upload in parts, a hyphen and the number of parts follow.
    """

    offset: int
    at_ms: int
    etag: str

    def __post_init__(self) -> None:
        _check_place(self.offset, self.at_ms)
        if not _ETAG.fullmatch(self.etag):
            raise FormatError("an ETag is 32 hex digits, and may say of how many parts it is")


Note = Missing | Pause | Tone | Document | Aside | Etag


def note_value(note: Note) -> list[Any]:
    """Return the note as the list that rows and manifests store."""
    match note:
        case Missing():
            return ["gap", note.offset, note.at_ms, note.missing_ms]
        case Pause():
            return ["pause", note.offset, note.at_ms, note.missing_ms, note.dropped, note.lasting]
        case Tone():
            return ["dtmf", note.offset, note.at_ms, note.digit, note.duration_ms]
        case Document():
            return ["document", note.offset, note.at_ms, note.media_type, note.content]
        case Aside():
            return ["aside", note.offset, note.at_ms, [list(piece) for piece in note.pieces]]
        case Etag():
            return ["etag", note.offset, note.at_ms, note.etag]


def note_of(value: Any) -> Note:
    """Return the note that a value encodes; FormatError for a value that `note_value` does not produce."""
    kinds = [type(item) for item in value] if isinstance(value, list) else []
    match value:
        case ["gap", offset, at_ms, missing_ms] if kinds == [str, int, int, int]:
            return Missing(offset=offset, at_ms=at_ms, missing_ms=missing_ms)
        case ["pause", offset, at_ms, missing_ms, dropped, lasting] if kinds == [str, int, int, int, int, bool]:
            return Pause(offset=offset, at_ms=at_ms, missing_ms=missing_ms, dropped=dropped, lasting=lasting)
        case ["dtmf", offset, at_ms, digit, duration_ms] if kinds in ([*_TONE, int], [*_TONE, type(None)]):
            return Tone(offset=offset, at_ms=at_ms, digit=digit, duration_ms=duration_ms)
        case ["document", offset, at_ms, media_type, content] if kinds == [str, int, int, str, bytes]:
            return Document(offset=offset, at_ms=at_ms, media_type=media_type, content=content)
        case ["aside", offset, at_ms, pieces] if kinds == [str, int, int, list]:
            return Aside(offset=offset, at_ms=at_ms, pieces=tuple(_piece(each) for each in pieces))
        case ["etag", offset, at_ms, etag] if kinds == [str, int, int, str]:
            return Etag(offset=offset, at_ms=at_ms, etag=etag)
    raise FormatError("not a note of a known kind")


def _piece(value: Any) -> tuple[int, int]:
    match value:
        case [number, size] if [type(number), type(size)] == [int, int]:
            return number, size
    raise FormatError("a part kept aside is its number and its bytes")


def encode_note(note: Note) -> bytes:
    """Return the canonical bytes of one note."""
    return codec.pack(note_value(note))


def decode_note(data: bytes) -> Note:
    """Return the note that these bytes encode; raises FormatError."""
    return note_of(codec.unpack(data))


def etag_of(notes: Sequence[Note], length: int) -> str | None:
    """Return the ETag that was given to the client for audio of `length` bytes; None if there is none."""
    return next((note.etag for note in reversed(notes) if isinstance(note, Etag) and note.offset == length), None)


def check_notes(notes: Sequence[Note], length: int) -> None:
    """Raise FormatError unless the notes' offsets ascend within `length` bytes and at most one note is an Aside."""
    if any(later.offset < earlier.offset for earlier, later in pairwise(notes)) or any(
        note.offset > length for note in notes
    ):
        raise FormatError("a manifest's notes do not come in order inside the recording")
    if sum(isinstance(note, Aside) for note in notes) > 1:
        raise FormatError("a manifest says twice where its audio ends")


def audio_end(notes: Sequence[Note], stored: int) -> int:
    """Return how many of the first `stored` bytes are audio; the rest are parts that were left out."""
    return min([stored, *(note.offset for note in notes if isinstance(note, Aside))])


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAside:
    """Bytes `[start, end)` of a recording: an acknowledged part of the upload that is not in its audio."""

    part: int
    start: int
    end: int


def kept_aside(notes: Sequence[Note], stored: int) -> list[KeptAside]:
    """Return the parts that were left out of the audio, in order, as far as the first `stored` bytes contain them."""
    found: list[KeptAside] = []
    for note in notes:
        at = note.offset
        for number, size in note.pieces if isinstance(note, Aside) else ():
            end = min(at + size, stored)
            if at < end:
                found.append(KeptAside(part=number, start=at, end=end))
            at = end
    return found


def dropped_bytes(notes: Sequence[Note], end: int) -> int:
    """Return how many bytes of the recorder's stream were discarded in pauses up to plaintext offset `end`."""
    return sum(note.dropped for note in notes if isinstance(note, Pause) and note.offset <= end)


def kept_before(at: int, notes: Sequence[Note]) -> int:
    """Return how many of the first `at` bytes of the recorder's stream were kept."""
    before = taken = 0
    for pause in notes:
        if isinstance(pause, Pause):
            first = pause.offset + before
            taken += max(min(first + pause.dropped, at) - first, 0)
            before += pause.dropped
    return at - taken


def kept_of(piece: bytes, start: int, notes: Sequence[Note]) -> bytes:
    """Return the bytes of `piece` that were kept; `piece` begins at byte `start` of the recorder's stream."""
    kept: list[bytes] = []
    before = 0
    end = start + len(piece)
    at = start
    for pause in notes:
        if not isinstance(pause, Pause) or not pause.dropped:
            continue
        first = pause.offset + before
        last = first + pause.dropped
        before += pause.dropped
        if last <= at:
            continue
        if first >= end:
            break
        if first > at:
            kept.append(piece[at - start : first - start])
        at = min(last, end)
    kept.append(piece[at - start :])
    return b"".join(kept)


def _check_place(offset: int, at_ms: int) -> None:
    check_number(offset, "note offset")
    check_number(at_ms, "note time")
