"""A streaming parser of multipart/form-data (RFC 7578, RFC 2046 section 5.1): bytes in, events out.

Parts are not held in memory. Only bytes that may be the beginning of a delimiter are held back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from vault.errors import Invalid

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
