"""What tus 1.0 and the IETF's resumable uploads share: the stages of an upload, and the description of its call."""

from __future__ import annotations

import enum
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from vault.errors import InconsistentLength, Invalid, Malformed, TooLarge
from vault.ids import call_key_of
from vault.model import CallFacts
from vault.protocol.facts.stated import Reading

_NUMBER: Final = re.compile(r"[0-9]+", re.ASCII)
_ENDLESS: Final = 10**18
"""The value for all larger numbers; no recording is that long."""
_GENERIC: Final = frozenset({"", "application/octet-stream", "binary/octet-stream", "null", "undefined"})
_EXTENSIONS: Final[Mapping[str, str]] = {
    ".wav": "audio/wav",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".webm": "audio/webm",
    ".weba": "audio/webm",
    ".mp3": "audio/mpeg",
    ".ulaw": "audio/basic",
    ".mulaw": "audio/basic",
    ".ul": "audio/basic",
    ".pcmu": "audio/basic",
    ".alaw": "audio/PCMA",
    ".al": "audio/PCMA",
    ".pcma": "audio/PCMA",
}


class Stage(enum.Enum):
    """The state of an upload."""

    OPEN = "open"
    """No request is writing to it."""
    BUSY = "busy"
    """A request is writing to it."""
    SILENT = "silent"
    """A request is writing to it, but nothing has come for a while: its client may be gone."""
    COMPLETE = "complete"
    """Its intended end is durable."""
    GONE = "gone"
    """It was truncated, because its client did not return or terminated it."""


class Verb(enum.Enum):
    """What a request does with an upload."""

    ASK = "ask"
    APPEND = "append"
    TERMINATE = "terminate"


class Step(enum.Enum):
    """How the server handles the request."""

    ENTER = "enter"
    """The request gets the upload for itself."""
    TAKE_OVER = "take over"
    """The request that is writing is ended first; then this one gets the upload."""
    TELL = "tell"
    """The request is answered from what is known; the upload does not change any more."""
    LOCKED = "locked"
    KEPT = "kept"
    """The request is refused: a client cannot delete a complete recording."""
    GONE = "gone"


STEPS: Final[Mapping[tuple[Stage, Verb], Step]] = {
    (Stage.OPEN, Verb.ASK): Step.ENTER,
    (Stage.OPEN, Verb.APPEND): Step.ENTER,
    (Stage.OPEN, Verb.TERMINATE): Step.ENTER,
    (Stage.BUSY, Verb.ASK): Step.LOCKED,
    (Stage.BUSY, Verb.APPEND): Step.LOCKED,
    (Stage.BUSY, Verb.TERMINATE): Step.TAKE_OVER,
    (Stage.SILENT, Verb.ASK): Step.TAKE_OVER,
    (Stage.SILENT, Verb.APPEND): Step.TAKE_OVER,
    (Stage.SILENT, Verb.TERMINATE): Step.TAKE_OVER,
    (Stage.COMPLETE, Verb.ASK): Step.TELL,
    (Stage.COMPLETE, Verb.APPEND): Step.TELL,
    (Stage.COMPLETE, Verb.TERMINATE): Step.KEPT,
    (Stage.GONE, Verb.ASK): Step.GONE,
    (Stage.GONE, Verb.APPEND): Step.GONE,
    (Stage.GONE, Verb.TERMINATE): Step.GONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a client states about a call when it creates an upload.

    `call_key` is the recorder's own name for the call. `file_name` need not be unique.
    """

    call_key: str | None = field(default=None, repr=False)
    file_name: str | None = field(default=None, repr=False)
    media_type: str | None = None
    facts: CallFacts = field(default_factory=CallFacts, repr=False)
    started_at: datetime | None = None


def describe(metadata: Mapping[str, str], unusable: Mapping[str, str] | None = None) -> Description:
    """Return the description in the members call_key, filename, filetype, from, to, direction, started and tags.

    Other members are ignored. An unusable fact is left out and noted beside those in `unusable`.
    """
    key = metadata.get("call_key")
    reading = Reading()
    reading.unusable.update(unusable or {})
    return Description(
        call_key=call_key_of(key) if key else None,
        file_name=posixpath.basename(metadata.get("filename", "").replace("\\", "/")) or None,
        media_type=metadata.get("filetype"),
        started_at=reading.started("started", metadata.get("started")),
        facts=reading.facts(metadata),
    )


def choose_call_key(description: Description, fresh: str) -> tuple[str, str]:
    """Return the call key, and a suffix that makes it unique if it is already used; `fresh` is a unique name.

    Without a call key the file name is used; without both, `fresh`. A stated call key has no suffix.
    """
    if description.call_key is not None:
        return description.call_key, ""
    if description.file_name is None:
        return f"upload-{fresh}", fresh
    return call_key_of(description.file_name), fresh


def content_type(description: Description) -> str | None:
    """Return the declared type, else that of the file name's extension; None if neither names a format."""
    declared = (description.media_type or "").strip()
    if declared.lower() not in _GENERIC:
        return declared
    return _EXTENSIONS.get(posixpath.splitext(description.file_name or "")[1].lower())


def count(headers: Mapping[str, str], name: str) -> int | None:
    """Return the byte count in a header; None without the header, Malformed for other values."""
    value = headers.get(name)
    if value is None:
        return None
    digits = value.strip()
    if not _NUMBER.fullmatch(digits):
        raise Malformed(f"{name} is not a byte count")
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) < len(str(_ENDLESS)) else _ENDLESS


def require_size(size: int | None, *, limit: int) -> None:
    """Raise TooLarge for an upload above the limit, and Invalid for an empty one."""
    if size == 0:
        raise Invalid("the upload has no audio", hint="announce the length of the recording, or defer it")
    if size is not None and size > limit:
        raise TooLarge(f"the recording exceeds {limit} bytes")


def require_room(offset: int, adding: int | None, total: int | None) -> None:
    """Raise TooLarge if `adding` bytes at `offset` exceed the announced length `total`; None means not announced."""
    if adding is not None and total is not None and offset + adding > total:
        raise TooLarge(f"{adding} bytes at {offset} go beyond the announced length {total}; none of them was kept")


def require_length(known: int | None, announced: int | None, *, offset: int) -> None:
    """Raise InconsistentLength if the length announced now differs from the known one, or is less than `offset`."""
    if announced is None:
        return
    if known is not None and announced != known:
        raise InconsistentLength(f"the length of this upload is {known}, and is now said to be {announced}")
    if announced < offset:
        raise InconsistentLength(f"{offset} bytes have arrived, more than the announced length {announced}")
