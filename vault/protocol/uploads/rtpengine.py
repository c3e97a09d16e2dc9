"""The `X-Recording-` headers in which rtpengine-recording describes a finished file.

After sipwise/rtpengine, recording-daemon/notify.c. With `output-storage = notify` the file is the form field `ngfile`.
Daemons before mr13.5 attach it with `curl_mime_filedata`, which adds a filename and a content type, newer ones with
`curl_mime_data`, which adds neither. A message without a file is an event: a GET, or a POST without a body or with
JSON.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, unquote

from vault.errors import Invalid, UnsupportedMedia
from vault.ids import parse_call_key
from vault.media.descriptor import MAX_CHANNELS, MAX_RATE, MIN_RATE, TELEPHONE_RATE
from vault.model import CallFacts
from vault.protocol.facts.stated import MAX_FACT, Reading, Unusable

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
