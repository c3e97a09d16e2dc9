"""multipart/form-data (RFC 7578) as a stream, and the `X-Recording-` headers of rtpengine-recording.

Parts are not held in memory. Only bytes that may be the beginning of a delimiter are held back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final
from urllib.parse import quote, unquote

from vault.errors import Invalid, UnsupportedMedia
from vault.ids import parse_call_key
from vault.media.descriptor import MAX_CHANNELS, MAX_RATE, MIN_RATE, TELEPHONE_RATE
from vault.model import CallFacts
from vault.protocol.facts.stated import MAX_FACT, Reading, Unusable

# -- a form as a stream ---------------------------------------------------------------------------------------------

_MAX_HEADERS: Final = 8_192
_MAX_PADDING: Final = 256
_MAX_PARTS: Final = 100
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)
_PARAMETER: Final = re.compile(r';\s*boundary=(?:"([^"\\]*)"|([^\s;"]+))', re.ASCII | re.IGNORECASE)
_NAME: Final = re.compile(rb';\s*name="((?:[^"\\\r\n]|\\.)*)"', re.IGNORECASE)
_HINT: Final = "send multipart/form-data as libcurl does"


@dataclass(frozen=True, slots=True)
class PartBegan:
    """A part begins; `name` is its field name."""

    name: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PartData:
    """Bytes of the part; never empty."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PartEnded:
    """The part is complete."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The closing delimiter has arrived: the form is complete."""


Event = PartBegan | PartData | PartEnded | Closed


class _State(Enum):
    PREAMBLE = auto()
    DELIMITER = auto()
    HEADERS = auto()
    DATA = auto()
    EPILOGUE = auto()


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a multipart/form-data content type declares; Invalid if there is none."""
    kind, _, _ = content_type.partition(";")
    found = _PARAMETER.search(content_type)
    boundary = (found[1] or found[2] or "") if found else ""
    if kind.strip().lower() != "multipart/form-data" or not _BOUNDARY.fullmatch(boundary):
        raise Invalid("the form has no usable boundary", hint=_HINT)
    return boundary.encode()


class Multipart:
    """Parses one form: call `receive` with its bytes, then `close`. Both raise Invalid for a malformed form."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter may come first of all: with a line end in front it looks like the others.
        self._buffer = bytearray(b"\r\n")
        self._state = _State.PREAMBLE
        self._parts = 0

    def receive(self, data: bytes) -> list[Event]:
        """Add bytes of the body and return the events that they complete."""
        self._buffer += data
        events: list[Event] = []
        while (following := _STEPS[self._state](self, events)) is not None:
            self._state = following
        return events

    def close(self) -> None:
        """End the body; Invalid unless the form is complete."""
        if self._state is not _State.EPILOGUE:
            raise Invalid("the form ends before its closing boundary", hint="send it again")

    def _preamble(self, _: list[Event]) -> _State | None:
        return _State.DELIMITER if self._passed_content() else None

    def _after_delimiter(self, events: list[Event]) -> _State | None:
        if self._buffer.startswith(b"--"):
            events.append(Closed())
            return _State.EPILOGUE
        end = self._buffer.find(b"\r\n")
        padding = bytes(self._buffer if end < 0 else self._buffer[:end])
        if len(padding) > _MAX_PADDING or padding.strip(b" \t\r") not in {b"", b"-"} or (end >= 0 and b"-" in padding):
            raise Invalid("a boundary of the form is followed by something else", hint=_HINT)
        if end < 0:
            return None
        del self._buffer[:end]  # the line end stays, so that a part without headers looks like the others
        return _State.HEADERS

    def _headers(self, events: list[Event]) -> _State | None:
        end = self._buffer.find(b"\r\n\r\n")
        if max(end, len(self._buffer) - 3 if end < 0 else 0) > _MAX_HEADERS:
            raise Invalid("the headers of a part of the form are too long")
        if end < 0:
            return None
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise Invalid("the form has too many parts")
        events.append(PartBegan(_field_name(bytes(self._buffer[:end]))))
        del self._buffer[: end + 4]
        return _State.DATA

    def _data(self, events: list[Event]) -> _State | None:
        if not self._passed_content(events):
            return None
        events.append(PartEnded())
        return _State.DELIMITER

    def _epilogue(self, _: list[Event]) -> _State | None:
        self._buffer.clear()
        return None

    def _passed_content(self, events: list[Event] | None = None) -> bool:
        """Move the bytes before the delimiter into `events`; return whether the delimiter was found and removed."""
        found = self._buffer.find(self._delimiter)
        size = found if found >= 0 else max(len(self._buffer) - len(self._delimiter) + 1, 0)
        if size and events is not None:
            events.append(PartData(bytes(memoryview(self._buffer)[:size])))
        del self._buffer[: size + (len(self._delimiter) if found >= 0 else 0)]
        return found >= 0


_STEPS: Final[Mapping[_State, Callable[[Multipart, list[Event]], _State | None]]] = {
    _State.PREAMBLE: Multipart._preamble,  # noqa: SLF001  # the one table of transitions
    _State.DELIMITER: Multipart._after_delimiter,  # noqa: SLF001
    _State.HEADERS: Multipart._headers,  # noqa: SLF001
    _State.DATA: Multipart._data,  # noqa: SLF001
    _State.EPILOGUE: Multipart._epilogue,  # noqa: SLF001
}


def _field_name(headers: bytes) -> str:
    """Return the field name of a part; Invalid for a part without a name, or with an encoded body."""
    name: str | None = None
    for line in headers.split(b"\r\n"):
        key, _, value = line.partition(b":")
        match key.strip().lower():
            case b"content-disposition":
                found = _NAME.search(value)
                name = found[1].decode("utf-8", "replace") if found else None
            case b"content-transfer-encoding" if value.strip().lower() not in {b"binary", b"8bit", b"7bit"}:
                raise Invalid("a part of the form is encoded", hint=_HINT)
    if name is None:
        raise Invalid("a part of the form has no name", hint=_HINT)
    return name


# -- the headers of rtpengine-recording -----------------------------------------------------------------------------
# The `X-Recording-` headers in which rtpengine-recording describes a finished file.
#
# After sipwise/rtpengine, recording-daemon/notify.c. With `output-storage = notify` the file is the form field
# `ngfile`. Daemons before mr13.5 attach it with `curl_mime_filedata`, which adds a filename and a content type, newer
# ones with `curl_mime_data`, which adds neither. A message without a file is an event: a GET, or a POST without a
# body or with JSON.

FIELD: Final = "ngfile"

_TYPES: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_EVENTS: Final = frozenset(
    f"{what}_{how}"
    for what, hows in {
        "recording_file": ("opened",),
        "recording": ("started", "finished", "discarded", "failed"),
        "call_recording": ("started", "finished", "discarded"),
    }.items()
    for how in hows
)
_TIME: Final = re.compile(r"[0-9]{1,11}(?:\.[0-9]{1,6})?", re.ASCII)
_COUNT: Final = re.compile(r"[0-9]{1,6}", re.ASCII)
_DIRECT: Final = re.compile(r"[A-Za-z0-9._@+=,-]{1,160}", re.ASCII)
_MAX_METADATA: Final = 4_096
_MAX_MEMBERS: Final = 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CALLER: Final = frozenset({"from", "caller", "call-from"})
_CALLED: Final = frozenset({"to", "called", "callee", "call-to"})
_TEXT_MEMBERS: Final = {
    "Call-ID": "call_id",
    "File-Name": "file_name",
    "Tag": "tag",
    "Label": "label",
    "Tag-Metadata": "tag_metadata",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One finished file: its call key and content type, and the facts of the call."""

    call_key: str = field(repr=False)
    content_type: str
    facts: CallFacts = field(repr=False)
    started_at: datetime | None


def notification(headers: Mapping[str, str]) -> Notification:
    """Read the headers of a message with a file; `headers` is a mapping that ignores case.

    Invalid without a call id or a file name; UnsupportedMedia for a file format that the vault cannot store and play.
    Other unreadable headers are left out: a daemon repeats a refused file, and would in the end give it up.
    """
    call, file = _header(headers, "Call-ID"), _header(headers, "File-Name")
    if not call or not file:
        raise Invalid(
            "the notification lacks the call or the file", hint="send X-Recording-Call-ID and X-Recording-File-Name"
        )
    reading = Reading()
    return Notification(
        call_key=_call_key(call, file),
        content_type=_content_type(headers, reading),
        started_at=_started(headers, reading),
        facts=_facts(headers, reading),
    )


def event_name(headers: Mapping[str, str]) -> str:
    """Return the event of a message without a file; older rtpengine only sends `recording_finished`, unnamed."""
    name = _header(headers, "Event")
    if not name:
        return "recording_finished"
    return name if name in _EVENTS else "unknown"


def _header(headers: Mapping[str, str], name: str) -> str:
    return headers.get(f"X-Recording-{name}", "").strip()


def _call_key(call: str, file: str) -> str:
    """Return a call key for Call-ID and file name: readable if a call key can have their characters, else a hash.

    The daemon percent-encodes the Call-ID within the file name. A name that is not encoded so is hashed: if it were
    decoded, two files could get the same call key.
    """
    name = unquote(file)
    readable = _DIRECT.fullmatch(call) and _DIRECT.fullmatch(name) and len(call) + len(name) < MAX_FACT - 10
    if readable and quote(name, safe="") == file:
        return parse_call_key(f"{call}~{name}")
    digest = hashlib.sha256(f"{call}\n{file}".encode("utf-8", "surrogateescape")).hexdigest()
    return parse_call_key(f"rtpengine~{digest}")


def _content_type(headers: Mapping[str, str], reading: Reading) -> str:
    """Return the content type of the file; an impossible rate or number of channels becomes that of a telephone."""
    kind = _header(headers, "File-Format").lower() or _header(headers, "File-Name").rpartition(".")[2].lower()
    if found := _TYPES.get(kind):
        return found
    if not kind.startswith("pcm"):
        raise UnsupportedMedia(
            "the file format of the notification is not one the vault can keep and play",
            hint="set output-format to wav or mp3 in rtpengine-recording.conf",
        )
    rate = _count(headers, "Sample-Rate", (MIN_RATE, MAX_RATE), TELEPHONE_RATE, reading)
    channels = _count(headers, "Channels", (1, MAX_CHANNELS), 1, reading)
    return f"audio/L16;rate={rate};channels={channels};byteorder=le"


def _count(headers: Mapping[str, str], name: str, bounds: tuple[int, int], default: int, reading: Reading) -> int:
    stated = _header(headers, name)
    if _COUNT.fullmatch(stated) and bounds[0] <= int(stated) <= bounds[1]:
        return int(stated)
    if stated or name == "Sample-Rate":
        reading.leave_out(name, Unusable.VALUE)
    return default


def _started(headers: Mapping[str, str], reading: Reading) -> datetime | None:
    """Return the start of the call, else that of its stream."""
    stated = (_header(headers, "Call-Start-Time"), _header(headers, "Stream-Start-Time"))
    found = _time(stated[0]) or _time(stated[1])
    if found is None and any(each.strip("0.") for each in stated):
        reading.leave_out("started", Unusable.VALUE)
    return found


def _time(value: str) -> datetime | None:
    """Return the instant of an epoch time with up to six decimals; None for 0, which means unknown."""
    if not _TIME.fullmatch(value):
        return None
    seconds, _, fraction = value.partition(".")
    if not int(seconds):
        return None
    try:
        return _EPOCH + timedelta(seconds=int(seconds), microseconds=int(fraction.ljust(6, "0")))
    except OverflowError:
        return None


def _facts(headers: Mapping[str, str], reading: Reading) -> CallFacts:
    members = _members(_header(headers, "Call-Metadata"), reading)
    caller = next((members.pop(key) for key in list(members) if key.lower() in _CALLER), "")
    called = next((members.pop(key) for key in list(members) if key.lower() in _CALLED), "")
    members = {key: value for key, text in members.items() if (value := reading.text(key, text)) is not None}
    members |= {
        short: value for name, short in _TEXT_MEMBERS.items() if (value := _text(_header(headers, name))) is not None
    }
    kind = _text(_header(headers, "Kind"))
    return CallFacts(
        caller=reading.text("from", caller),
        called=reading.text("to", called),
        direction=reading.direction("direction", members.get("direction")),
        tags=() if kind is None else (kind,),
        extra={f"rtpengine.{key}": value for key, value in members.items()},
        unusable=reading.unusable,
    )


def _members(metadata: str, reading: Reading) -> dict[str, str]:
    """Read `k:v|k:v`; malformed members, and those beyond a bound, are left out."""
    found: dict[str, str] = {}
    for member in metadata[:_MAX_METADATA].split("|"):
        key, colon, value = member.partition(":")
        name = _text(key)
        if not colon or name is None:
            continue
        if len(found) == _MAX_MEMBERS and name not in found:
            reading.leave_out("metadata", Unusable.MANY)
            break
        reading.keep_first(found, name, value.strip())
    return found


def _text(value: str) -> str | None:
    value = value.strip()
    return value if value and len(value) <= MAX_FACT and value.isprintable() else None
