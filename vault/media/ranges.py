"""The Range request header (RFC 9110 section 14), one range at a time."""

from __future__ import annotations

import re
from typing import Final

from vault.errors import RangeNotSatisfiable

_RANGE: Final = re.compile(r"bytes\s*=\s*([0-9]{0,19})-([0-9]{0,19})", re.ASCII | re.IGNORECASE)


def parse_range(header: str | None, total: int) -> tuple[int, int] | None:
    """Return the half-open byte range `[start, end)` of a representation of `total` bytes, or None for all of it.

    It is None if RFC 9110 allows or requires a server to ignore the header: no header, another unit, a malformed value,
    several ranges. A range that begins at or after the end, or an empty suffix, raises RangeNotSatisfiable with `total`
    in its facts, for `Content-Range: bytes */total`.
    """
    match = None if header is None else _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    first, last = match[1], match[2]
    if not first:
        start, end = max(total - int(last), 0), total
    else:
        start, end = int(first), min(int(last) + 1, total) if last else total
        if last and int(last) < start:
            return None
    if start >= end:
        raise RangeNotSatisfiable(f"the range lies outside the {total} bytes", total=total)
    return start, end
