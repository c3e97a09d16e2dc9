"""What tus 1.0 and the IETF's resumable uploads have in common: an upload's stages, and what is told of its call."""

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
"""What stands for every larger number: no recording comes near it."""
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
    """How far an upload is."""

    OPEN = "open"
    """Nobody writes to it now."""
    BUSY = "busy"
    """A request writes to it."""
    SILENT = "silent"
    """A request writes to it that has not been heard for a while: its client may be gone without a word."""
    COMPLETE = "complete"
    """The end is durable and is the one that was meant."""
    GONE = "gone"
    """It ended as truncated: its client stayed away, or terminated it."""


class Verb(enum.Enum):
    """What a request wants of an upload."""

    ASK = "ask"
    APPEND = "append"
    TERMINATE = "terminate"


class Step(enum.Enum):
    """What is done about it."""

    ENTER = "enter"
    """Have the upload to itself, and go on."""
    TAKE_OVER = "take over"
    """End the request that writes first."""
    TELL = "tell"
    """Answer from what is known; nothing changes any more."""
    LOCKED = "locked"
    KEPT = "kept"
    """Refuse: a complete recording is not the client's to take back."""
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
    """What a client says about a call when it creates an upload.

    `call_key` is the recorder's own name for the call; `file_name` only looks like one, and may be that of many.
    """

    call_key: str | None = field(default=None, repr=False)
    file_name: str | None = field(default=None, repr=False)
    media_type: str | None = None
    facts: CallFacts = field(default_factory=CallFacts, repr=False)
    started_at: datetime | None = None


def describe(metadata: Mapping[str, str], unusable: Mapping[str, str] | None = None) -> Description:
    """Read the members that the vault knows: call_key, filename, filetype, from, to, direction, started, tags.

    Others are left out: nobody asked for them; so is a fact that is not what its name says. `unusable` was left out
    before.
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


def names(description: Description, fresh: str) -> tuple[str, str]:
    """Return the call key to take, and what distinguishes it if it is taken: `fresh` is a name nobody else has.

    A file's name is one as any other name of a call is.
    """
    if description.call_key is not None:
        return description.call_key, ""
    if description.file_name is None:
        return f"upload-{fresh}", fresh
    return call_key_of(description.file_name), fresh


def content_type(description: Description) -> str | None:
    """Return the declared type, else that of the file's name; None if neither says what the audio is."""
    declared = (description.media_type or "").strip()
    if declared.lower() not in _GENERIC:
        return declared
    return _EXTENSIONS.get(posixpath.splitext(description.file_name or "")[1].lower())


def count(headers: Mapping[str, str], name: str) -> int | None:
    """Return the byte count in a header, or None without one; Malformed for anything else."""
    value = headers.get(name)
    if value is None:
        return None
    digits = value.strip()
    if not _NUMBER.fullmatch(digits):
        raise Malformed(f"{name} is not a byte count")
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) < len(str(_ENDLESS)) else _ENDLESS


def require_size(size: int | None, *, limit: int) -> None:
    """Raise TooLarge for an upload above the limit, and Invalid for one that will have no audio."""
    if size == 0:
        raise Invalid("the upload has no audio", hint="announce the length of the recording, or defer it")
    if size is not None and size > limit:
        raise TooLarge(f"the recording exceeds {limit} bytes")


def require_room(offset: int, adding: int | None, total: int | None) -> None:
    """Raise TooLarge if a request that adds so many bytes (None: it does not say) would pass the announced length."""
    if adding is not None and total is not None and offset + adding > total:
        raise TooLarge(f"{adding} bytes at {offset} go beyond the announced length {total}; none of them was kept")


def require_length(known: int | None, announced: int | None, *, offset: int) -> None:
    """Raise InconsistentLength if a length announced now is not the one known, or less than what has come."""
    if announced is None:
        return
    if known is not None and announced != known:
        raise InconsistentLength(f"the length of this upload is {known}, and is now said to be {announced}")
    if announced < offset:
        raise InconsistentLength(f"{offset} bytes have come, more than the {announced} that are announced")
