"""Canonical MessagePack, and the beginning of a sealed object, which is made of it (docs/format.md).

Maps have string keys in ascending byte order, integers take their shortest form, floats and extensions do not occur.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgpack

from vault.errors import FormatError, Invalid, Truncated, kind_in_words
from vault.ids import parse_tenant
from vault.model import Cohort, Coordinate, Part

# -- canonical MessagePack ----------------------------------------------------------------------------------------

_MAX_INPUT_BYTES = 64 << 20
MAX_DEPTH = 32
"""How deep maps and lists may nest."""
_PLAIN: Final = frozenset({type(None), bool, int, str, bytes})


def _canonical(value: Any, room: int = MAX_DEPTH) -> Any:
    if room < 0:
        raise FormatError(f"a value nests deeper than {MAX_DEPTH} maps and lists")
    match value:
        case None | bool() | int() | str() | bytes():
            return value
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise FormatError("map keys are strings")
            return {key: _canonical(value[key], room - 1) for key in sorted(value, key=str.encode)}
        case list() | tuple():
            # A keyring of a large vault has a hundred thousand plain values, and a start goes through all of them.
            return [item if room and type(item) in _PLAIN else _canonical(item, room - 1) for item in value]
        case _:
            raise FormatError(f"{kind_in_words(type(value))} has no canonical encoding")


def pack(value: Any) -> bytes:
    """Encode maps, lists, str, bytes, int, bool and None canonically; FormatError for anything else."""
    try:
        packed: bytes = msgpack.packb(_canonical(value), use_bin_type=True)
    except (OverflowError, ValueError) as error:
        raise FormatError("a value has no canonical encoding: too large, or not Unicode") from error
    return packed


def unpack(data: bytes | memoryview) -> Any:
    """Decode bytes that `pack` produces; any other bytes raise FormatError."""
    if len(data) > _MAX_INPUT_BYTES:
        raise FormatError(f"a MessagePack value of {len(data)} bytes; the bound is {_MAX_INPUT_BYTES}")
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise FormatError("not a MessagePack value") from error
    if pack(value) != bytes(data):
        raise FormatError("a MessagePack value, but not in canonical form")
    return value


def fields(value: Any, **types: type) -> Sequence[Any]:
    """Return the values of a map that has exactly the keys of `types` and their types; raises FormatError.

    `bool` is not accepted for `int`.
    """
    if not isinstance(value, dict) or value.keys() != types.keys():
        raise FormatError(f"expected a map with the keys {', '.join(sorted(types))}")
    for key, kind in types.items():
        if type(value[key]) is not kind:
            raise FormatError(f"field {key} is not {kind_in_words(kind)}")
    return [value[key] for key in types]


_COORDINATE_ITEMS = 5


def encode_coordinate(coordinate: Coordinate) -> list[str | int]:
    """Return `[tenant, part, period, generation, leaf]`."""
    cohort = coordinate.cohort
    return [cohort.tenant, cohort.part.value, cohort.period, cohort.generation, coordinate.leaf]


def decode_coordinate(value: Any) -> Coordinate:
    """Return the coordinate that `encode_coordinate` wrote; FormatError."""
    if (
        not isinstance(value, list)
        or len(value) != _COORDINATE_ITEMS
        or [type(item) for item in value] != [str, str, int, int, int]
    ):
        raise FormatError("a coordinate is [tenant, part, period, generation, leaf]")
    tenant, part, period, generation, leaf = value
    if not (0 <= period < 1 << 48 and 0 <= generation < 1 << 32 and 0 <= leaf < 1 << 32):
        raise FormatError("a coordinate's number is out of range")
    try:
        cohort = Cohort(tenant=parse_tenant(tenant), part=Part(part), period=period, generation=generation)
    except (Invalid, ValueError) as error:
        raise FormatError("a coordinate names an impossible tenant or part") from error
    return Coordinate(cohort=cohort, leaf=leaf)


# -- the beginning of a sealed object -----------------------------------------------------------------------------

MAGIC_BYTES: Final = 4
PREAMBLE_BYTES: Final = MAGIC_BYTES + 4
MAX_HEADER_BYTES: Final = 4096


def frame(magic: bytes, header: bytes) -> bytes:
    """Return the bytes before an object's message: `magic`, the header's length as u32 big-endian, the header."""
    if len(magic) != MAGIC_BYTES or not 0 < len(header) <= MAX_HEADER_BYTES:
        raise FormatError(f"a header of {len(header)} bytes cannot be framed")
    return magic + len(header).to_bytes(4, "big") + header


def unframe(magic: bytes, data: bytes | bytearray | memoryview) -> tuple[bytes, int]:
    """Return the header bytes and the offset at which the message starts.

    `data` is the object, or enough of its first bytes. Raises FormatError for another magic or an impossible length,
    Truncated if `data` ends inside the frame.
    """
    start = bytes(data[:PREAMBLE_BYTES])
    if start[:MAGIC_BYTES] != magic[: len(start)]:
        raise FormatError(f"not a {magic.decode()} object: it does not start with those four bytes")
    if len(start) < PREAMBLE_BYTES:
        raise Truncated(f"the {magic.decode()} object ends inside its first {PREAMBLE_BYTES} bytes")
    length = int.from_bytes(start[MAGIC_BYTES:], "big")
    if not 0 < length <= MAX_HEADER_BYTES:
        raise FormatError(f"a header of {length} bytes is not possible; the bound is {MAX_HEADER_BYTES}")
    end = PREAMBLE_BYTES + length
    header = bytes(data[PREAMBLE_BYTES:end])
    if len(header) < length:
        raise Truncated(f"the {magic.decode()} object ends inside its header")
    return header, end
