"""Where a PUT body belongs in its recording: `Upload-Offset`, or `Content-Range` (RFC 9110 section 14.5).

A body is the whole recording, its rest, or a piece of it. GStreamer's `souphttpclientsink` sends pieces: the first PUT
has no `Content-Range`, each later one has `bytes a-b/*`, and nothing marks the end of the recording
(gstsouphttpclientsink.c, `send_message_locked`). It is recognised by its User-Agent; other clients put `?append` in the
URL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vault.errors import Invalid

_DIGITS: Final = 16
_OFFSET: Final = re.compile(rf"[0-9]{{1,{_DIGITS}}}", re.ASCII)
_RANGE: Final = re.compile(rf"bytes ([0-9]{{1,{_DIGITS}}})-([0-9]{{1,{_DIGITS}}})/([0-9]{{1,{_DIGITS}}}|\*)", re.ASCII)
_APPENDS: Final = "GStreamer souphttpclientsink"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """The place of one body in its recording.

    - `offset` is where it begins; None for a body that begins at the start of the recording.
    - `length` is the number of bytes that a range announces.
    - `resends`: bytes before the durable end may be sent again.
    - `ends`: the recording ends with this body.
    - `appends`: the client continues after a refusal, so an offset beyond the durable end is a gap, not an error.
    """

    offset: int | None = None
    length: int | None = None
    resends: bool = True
    ends: bool = True
    appends: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether the body is a piece from a client that ignores the answers."""
        return self.appends and self.resends


def placing(headers: Mapping[str, str], *, append: bool = False) -> Placing:
    """Return the place that the headers state (a mapping that ignores case); Invalid if they contradict each other."""
    appends = append or headers.get("User-Agent", "").startswith(_APPENDS)
    offset = _offset(headers.get("Upload-Offset"))
    value = headers.get("Content-Range")
    if value is None:
        return Placing(offset=offset, resends=offset is None, ends=not appends, appends=appends)
    first, last, total = _range(value)
    if offset not in (None, first):
        raise Invalid("Upload-Offset and Content-Range name different places", hint="send one of them")
    return Placing(offset=first, length=last - first + 1, ends=last + 1 == total, appends=appends)


def _offset(value: str | None) -> int | None:
    if value is None:
        return None
    if not _OFFSET.fullmatch(value):
        raise Invalid("Upload-Offset is not a byte count")
    return int(value)


def _range(value: str) -> tuple[int, int, int | None]:
    match = _RANGE.fullmatch(value.strip())
    if match is None:
        raise Invalid("Content-Range is not understood", hint="for example: bytes 1000-1999/* or bytes 1000-1999/2000")
    first, last, total = int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])
    if last < first or (total is not None and last >= total):
        raise Invalid(
            "Content-Range contradicts itself", hint="the last byte is not before the first nor beyond the total"
        )
    return first, last, total
