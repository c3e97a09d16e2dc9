"""Sizes as people write them: `512B`, `8MiB`, `20GiB`."""

from __future__ import annotations

import re
from typing import Final

from vault.errors import Invalid

_SIZE: Final = re.compile(r"([0-9]{1,15}) ?(B|KiB|MiB|GiB|TiB)", re.ASCII)
_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_MIB: Final = _UNITS["MiB"]
_TENS: Final = ((9.995, 2), (99.95, 1))


def parse_size(text: str) -> int:
    """Return the number of bytes that `text` writes: a whole number and its unit; Invalid for any other text."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:40]!r} is not a size", hint='a size is text with a unit: "512B", "8MiB", "20GiB"')
    return int(match[1]) * _UNITS[match[2]]


def in_mib(size: int) -> str:
    """Return bytes in MiB with three significant digits, or as many as the whole number has: 0.46, 12.3, 1234."""
    mib = size / _MIB
    digits = next((digits for below, digits in _TENS if mib < below), 0)
    return f"{mib:.{digits}f}"
