"""Frozen dataclasses to canonical JSON (RFC 8785) and back; reading refuses any value that has not exactly its shape.

Writing composes the text from parts compiled once per class, several times faster than building a document and sorting
it. The tests compare it with the `rfc8785` package byte for byte.

Supported field types: str, bool, int (0 to 2^53 - 1, what JSON numbers carry exactly), aware datetimes as RFC 3339 UTC
with microseconds and `Z`, string enums, coordinates, None, nested dataclasses, `tuple[X, ...]` and `X | None`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from json.encoder import encode_basestring
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from vault.errors import FormatError, Invalid, kind_in_words
from vault.format.codec import decode_coordinate, encode_coordinate
from vault.model import Coordinate

_MAX_INT: Final = (1 << 53) - 1
_STAMP: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z", re.ASCII)

_NAMED: Final = 5
"""How many of the members that differ are named."""
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # one without a zone is written faster

_T = TypeVar("_T")
_Write = Callable[[Any], str]
_Decode = Callable[[Any, str], Any]


@lru_cache(maxsize=1024)
def stamp(instant: datetime) -> str:
    """Return `2026-05-30T09:30:00.000000Z`; Invalid for a naive datetime."""
    # Cached: the certificates of one batch repeat a few instants many times.
    if instant.tzinfo is not UTC:
        if instant.tzinfo is None:
            raise Invalid("a time without a zone cannot be certified")
        instant = instant.astimezone(UTC)
    return instant.isoformat(timespec="microseconds")[:-6] + "Z"


_MINUTE_US = 60_000_000
_MINUTES = tuple(f"T{minute // 60:02}:{minute % 60:02}:" for minute in range(1440))


def stamp_at(microseconds: int) -> str:
    """Return the same for an instant in microseconds since 1970; many times as fast."""
    minute, rest = divmod(microseconds, _MINUTE_US)
    day, minute = divmod(minute, 1440)
    digits = str(rest + 100_000_000)  # two of seconds and six of microseconds behind the first
    return f"{_date(day)}{_MINUTES[minute]}{digits[1:3]}.{digits[3:]}Z"


@lru_cache(maxsize=4096)
def _date(day: int) -> str:
    return (_EPOCH + timedelta(day)).date().isoformat()


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 bytes of a dataclass instance; Invalid for a number or a text that JSON cannot carry."""
    shape: Any = type(value)
    try:
        return _writer(shape)(value).encode()
    except UnicodeEncodeError:
        raise Invalid("a text that is not Unicode cannot be certified") from None


def from_json(shape: type[_T], value: Any) -> _T:
    """Return an instance of the dataclass `shape`.

    FormatError names the place of the first missing, unknown or wrongly typed member. Errors of the dataclass's own
    `__post_init__` pass through.
    """
    hint: Any = shape
    decoded: _T = _decoder(hint)(value, "")
    return decoded


@cache
def _writer(hint: Any) -> _Write:
    """Return the function that writes values of the type `hint` as canonical JSON text."""
    if leaf := _LEAF_WRITERS.get(getattr(hint, "__supertype__", hint)):
        return leaf
    if is_dataclass(hint):
        return _dataclass_writer(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        item = _writer(arguments[0])
        return lambda value: f"[{','.join(map(item, value))}]"
    if origin in {UnionType, Union}:
        some = _writer(_some(arguments))
        return lambda value: "null" if value is None else some(value)
    # What is left is a string enum: already the string it stands for.
    return encode_basestring


def _dataclass_writer(shape: Any) -> _Write:
    hints = get_type_hints(shape)
    # Members in the order of their UTF-16 code units (RFC 8785 section 3.2.3), which is Python's order for ASCII names.
    names = sorted(field.name for field in fields(shape))
    writers = [_writer(hints[name]) for name in names]
    read = attrgetter(*names)
    template = "{" + ",".join(f'"{name}":%s' for name in names) + "}"
    return lambda value: template % tuple([write(member) for write, member in zip(writers, read(value), strict=True)])


def _write_int(value: int) -> str:
    if not 0 <= value <= _MAX_INT:
        raise Invalid("a number is negative or beyond what JSON numbers carry")
    return str(value)


def _write_coordinate(value: Coordinate) -> str:
    items = encode_coordinate(value)
    return f"[{','.join(encode_basestring(item) if isinstance(item, str) else _write_int(item) for item in items)}]"


_LEAF_WRITERS: Final[Mapping[Any, _Write]] = {
    str: encode_basestring,
    bool: lambda value: "true" if value else "false",
    int: _write_int,
    NoneType: lambda _value: "null",
    datetime: lambda value: f'"{stamp(value)}"',
    Coordinate: _write_coordinate,
}


@cache
def _decoder(hint: Any) -> _Decode:
    if leaf := _LEAF_DECODERS.get(hint):
        return leaf
    if is_dataclass(hint):
        return _dataclass_decoder(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return _tuple_decoder(_decoder(arguments[0]))
    if origin in {UnionType, Union}:
        some = _decoder(_some(arguments))
        return lambda value, place: None if value is None else some(value, place)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum_decoder(hint)
    return _scalar_decoder(getattr(hint, "__supertype__", hint))


def _dataclass_decoder(shape: Any) -> _Decode:
    hints = get_type_hints(shape)
    members: Mapping[str, _Decode] = {field.name: _decoder(hints[field.name]) for field in fields(shape)}

    def decode_fields(value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise FormatError(f"{place or 'the document'} is not an object")
        if value.keys() != members.keys():
            differing = sorted(value.keys() ^ members.keys())
            named = ", ".join(key[:40] for key in differing[:_NAMED])
            further = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
            raise FormatError(f"{place or 'the document'} lacks or does not know: {named}{further}")
        return shape(
            **{name: decode(value[name], f"{place}.{name}" if place else name) for name, decode in members.items()}
        )

    return decode_fields


def _tuple_decoder(item: _Decode) -> _Decode:
    def decode_items(value: Any, place: str) -> Any:
        if not isinstance(value, list):
            raise FormatError(f"{place} is not a list")
        return tuple(item(element, f"{place}[{index}]") for index, element in enumerate(value))

    return decode_items


def _enum_decoder(kind: type[enum.Enum]) -> _Decode:
    def decode_member(value: Any, place: str) -> Any:
        if not isinstance(value, str):
            raise FormatError(f"{place} is not a string")
        try:
            return kind(value)
        except ValueError:
            raise FormatError(f"{place} is not one of {', '.join(member.value for member in kind)}") from None

    return decode_member


def _scalar_decoder(kind: type) -> _Decode:
    if kind not in {str, bool, int, NoneType}:
        raise TypeError(f"{kind} has no JSON shape")

    def decode_scalar(value: Any, place: str) -> Any:
        # By exact type: True is an int, and 1.0 equals 1.
        if type(value) is not kind:
            raise FormatError(f"{place} is not {kind_in_words(kind)}")
        return value

    def decode_int(value: Any, place: str) -> int:
        number: int = decode_scalar(value, place)
        if not 0 <= number <= _MAX_INT:
            raise FormatError(f"{place} is negative or beyond what JSON numbers carry")
        return number

    return decode_int if kind is int else decode_scalar


def _instant(value: Any, place: str) -> datetime:
    if not isinstance(value, str) or not _STAMP.fullmatch(value):
        raise FormatError(f"{place} is not a UTC time with microseconds")
    try:
        found = datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        raise FormatError(f"{place} is not a day and time that exist") from None
    # Some versions of Python read 24:00 as the next day's midnight.
    if stamp(found) != value:
        raise FormatError(f"{place} is not a day and time that exist")
    return found


_LEAF_DECODERS: Final[Mapping[Any, _Decode]] = {
    Coordinate: lambda value, _place: decode_coordinate(value),
    datetime: _instant,
}


def _some(arguments: tuple[Any, ...]) -> Any:
    [some] = [argument for argument in arguments if argument is not NoneType]
    return some
