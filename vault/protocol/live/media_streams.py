"""Media streams of Twilio and Telnyx: JSON text messages, audio in base64, one or two tracks.

Twilio: "Media Streams - WebSocket Messages" (Voice documentation). Telnyx: "Stream call media over WebSocket" (AsyncAPI
specification of its Voice API), the same messages in snake_case. Numbers are strings in both. `stop` is the end; the
recorder need not close the connection. Nothing is sent to it.

Twilio's streams can carry no header and lose the URL's query, so the token and facts of the call come as custom
parameters. Telnyx repeats its streaming auth token in `connected`. It does not state which tracks will come, and does
not guarantee the order of messages.
"""

from __future__ import annotations

import binascii
import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from vault.errors import Invalid, UnsupportedMedia
from vault.media.descriptor import raw_media
from vault.media.g711 import SILENCE
from vault.media.tracks import Missing, Tracks
from vault.model import CallFacts, Codec, Media
from vault.protocol.facts.metadata import Members, address_facts, call_facts, call_key, dtmf, number, parse_object
from vault.protocol.facts.stated import Reading, Unusable
from vault.protocol.live.events import Audio, Breakage, Broken, Ended, Event, Gap, Handshake, LeftOut, Say, Started

_MAX_UNKNOWN: Final = 16
"""How many unknown events may come before the call is known."""
_MOST_AUDIO: Final = 1 << 18
"""The most bytes of one event: a filled gap can be longer than one piece may be."""
_MAX_DIGITS: Final = 15
_TRACKS: Final = ("inbound", "outbound")
"""In the order of the channels. The caller is on the inbound track and comes first."""
_KNOWN: Final = frozenset({"token", "call_key", "tags", "tracks", "byteorder"})
"""Custom parameters that are not facts."""
_TELNYX_TOKEN: Final = "x-telnyx-streaming-auth-token"  # noqa: S105 - the name of a member
_CODECS: Final[Mapping[str, Codec]] = {
    "audio/x-mulaw": Codec.PCMU,
    "audio/x-alaw": Codec.PCMA,
    "PCMU": Codec.PCMU,
    "PCMA": Codec.PCMA,
    "L16": Codec.S16LE,
}
_L16: Final[Mapping[str, Codec]] = {"le": Codec.S16LE, "be": Codec.S16BE}

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spelling:
    """The names of the members of `start`, which differ between the two."""

    call: str
    media_format: str
    sample_rate: str
    parameters: str
    kept: tuple[str, ...]
    """Members that are stored with the facts under their own names."""


_TWILIO: Final = _Spelling(
    call="callSid",
    media_format="mediaFormat",
    sample_rate="sampleRate",
    parameters="customParameters",
    kept=("callSid", "streamSid", "accountSid"),
)
_TELNYX: Final = _Spelling(
    call="call_control_id",
    media_format="media_format",
    sample_rate="sample_rate",
    parameters="custom_parameters",
    kept=("call_control_id", "call_session_id", "user_id", "client_state"),
)


class _State(enum.Enum):
    OPENED = "before `connected`"
    CONNECTED = "before `start`"
    STREAMING = "after `start`"
    STOPPED = "after the end"


class MediaStream:
    """The machine of one stream of either provider."""

    name: ClassVar[str]

    def __init__(self, handshake: Handshake) -> None:
        self._query = handshake.query
        self._token: str | None = None
        self._unknown = 0
        self._numbers: Mapping[str, int] = {}
        self._width = 1
        self._tracks: Tracks | None = None
        self._breakage = Breakage()
        self._enter(_State.OPENED)

    def _enter(self, state: _State) -> None:
        self._state = state
        self._steps = _TRANSITIONS[state]

    def receive(self, message: str | bytes) -> Sequence[Event]:
        """Receive one message; Invalid if the state does not permit it. `closed` still returns held audio then."""
        document = _parsed(message) if self._state is _State.STREAMING else parse_object(message) or Members()
        event = _text(document, "event")
        step = None if event is None else self._steps.get(event)
        if step is not None:
            return step(self, document)
        if event is None and self._state is _State.STREAMING:
            return self._breakage.left_out(Broken.FORM)
        if event in _EVENTS or (event is None and self._state is _State.STOPPED):
            raise Invalid(f"a message is not permitted {self._state.value}")
        self._unknown += 1
        if self._state is not _State.STREAMING and self._unknown > _MAX_UNKNOWN:
            raise Invalid("the recorder does not state which call it is")
        return ()

    def waiting(self) -> int:
        """Return how many bytes of audio are held back for missing pieces or for the other track."""
        return self._tracks.waiting if self._tracks is not None and self._state is _State.STREAMING else 0

    def idle(self) -> Sequence[Event]:
        """End a stream that fell silent, and return its held audio."""
        return self._finished(clean=False, reason="idle")

    def closed(self, code: int | None) -> Sequence[Event]:  # noqa: ARG002 - only `stop` is an end
        """End a stream whose connection ended without `stop`, and return its held audio."""
        return self._finished(clean=False, reason="closed")

    def closing_messages(self) -> Sequence[Say]:
        """Return nothing: these streams are one-way."""
        return ()

    def _finished(self, *, clean: bool, reason: str) -> Sequence[Event]:
        if self._state is not _State.STREAMING:
            return ()
        assert self._tracks is not None
        self._enter(_State.STOPPED)
        return [*_events(self._tracks.flush()), Ended(clean=clean, reason=reason)]

    # -- transitions --------------------------------------------------------------------------------------------

    def _on_connected(self, message: Message) -> Sequence[Event]:
        self._token = _text(_members(message, "connected"), _TELNYX_TOKEN)
        self._enter(_State.CONNECTED)
        return ()

    def _on_start(self, message: Message) -> Sequence[Event]:
        start = _members(message, "start")
        spelling = _TWILIO if _TWILIO.media_format in start else _TELNYX
        custom = _members(start, spelling.parameters)
        odd = {spelling.parameters} if start.get(spelling.parameters) not in (None, custom) else set()
        parameters = {**self._query, **custom}
        chosen, odd_tracks = _tracks(start, parameters)
        odd |= odd_tracks
        media = _media(_members(start, spelling.media_format), spelling, parameters, channels=len(chosen))
        silence = bytes([SILENCE[media.codec]]) if media.codec in SILENCE else b"\0\0"
        self._numbers = {track: number for number, track in enumerate(chosen)}
        self._width = len(silence)
        self._tracks = Tracks(len(chosen), rate=media.rate, silence=silence)
        self._enter(_State.STREAMING)
        return (
            Started(
                call_key=call_key(custom, ("call_key",)) or call_key(start, (spelling.call,)),
                media=media,
                facts=_facts(start, custom, self._query, spelling, odd=odd),
                token=_text(custom, "token") or self._token,
            ),
        )

    def _on_media(self, message: Message) -> Sequence[Event]:
        assert self._tracks is not None
        try:
            media = message["media"]
            number = self._numbers[media["track"]]
            data = binascii.a2b_base64(media["payload"], strict_mode=True)
            chunk, timestamp_ms = media["chunk"], media["timestamp"]
        except (KeyError, TypeError):
            return self._breakage.left_out(_lacking(message, self._numbers))
        except ValueError:
            return self._breakage.left_out(Broken.PAYLOAD)
        place, at_ms = _number(chunk), _number(timestamp_ms)
        if place is None or at_ms is None:
            return self._breakage.left_out(Broken.MEMBER)
        if len(data) % self._width:
            return self._breakage.left_out(Broken.PAYLOAD)
        self._breakage.sound += 1
        dropped = self._tracks.dropped
        decided = self._tracks.add(number, place, at_ms, data) if data else ()
        return (LeftOut(Broken.LATE),) if self._tracks.dropped > dropped else _events(decided)

    def _on_dtmf(self, message: Message) -> Sequence[Event]:
        if not isinstance(message.get("dtmf"), dict):
            return self._breakage.left_out(Broken.MEMBER)
        return dtmf(message["dtmf"].get("digit"))

    def _on_repeated(self, message: Message) -> Sequence[Event]:  # noqa: ARG002 - the call is known
        return self._breakage.left_out(Broken.ORDER)

    def _on_stop(self, message: Message) -> Sequence[Event]:  # noqa: ARG002 - its members repeat those of `start`
        return self._finished(clean=True, reason="stop")


class Twilio(MediaStream):
    """A stream of Twilio."""

    name = "twilio"


class Telnyx(MediaStream):
    """A stream of Telnyx."""

    name = "telnyx"


_EVENTS: Final = frozenset({"connected", "start", "media", "dtmf", "stop"})
_TRANSITIONS: Final[Mapping[_State, Mapping[str, Callable[[MediaStream, Message], Sequence[Event]]]]] = {
    _State.OPENED: {"connected": MediaStream._on_connected},  # noqa: SLF001 - the table is the class's own
    _State.CONNECTED: {"start": MediaStream._on_start},  # noqa: SLF001
    _State.STREAMING: {
        "media": MediaStream._on_media,  # noqa: SLF001
        "dtmf": MediaStream._on_dtmf,  # noqa: SLF001
        "stop": MediaStream._on_stop,  # noqa: SLF001
        "connected": MediaStream._on_repeated,  # noqa: SLF001
        "start": MediaStream._on_repeated,  # noqa: SLF001
    },
    _State.STOPPED: {},
}


def recognise_media_stream(handshake: Handshake, first: str | bytes) -> MediaStream | None:
    """Return a new machine if the first message is `connected`, which Twilio sends with a protocol; else None."""
    message = parse_object(first) or Members()
    if message.get("event") != "connected":
        return None
    return Twilio(handshake) if "protocol" in message and "connected" not in message else Telnyx(handshake)


def _parsed(message: str | bytes) -> Message:
    """Return the JSON object in a text frame; empty for any other frame."""
    try:
        document = json.loads(message) if isinstance(message, str) else None
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _lacking(message: Message, tracks: Mapping[str, int]) -> Broken:
    """Return why an incomplete media message is left out: an unknown track, or a missing member."""
    media = message.get("media")
    track = media.get("track") if isinstance(media, dict) else None
    return Broken.TRACK if isinstance(track, str) and track not in tracks else Broken.MEMBER


def _members(message: Message, name: str) -> Message:
    """Return the object in a member of the message; empty if there is none."""
    members = message.get(name)
    return members if isinstance(members, dict) else {}


def _number(value: object) -> int | None:
    if type(value) is str and len(value) <= _MAX_DIGITS and value.isascii() and value.isdigit():
        return int(value)
    if type(value) is int and 0 <= value < 10**_MAX_DIGITS:
        return value
    return None


def _text(members: Message, name: str) -> str | None:
    value = members.get(name)
    return value if isinstance(value, str) and value else None


def _tracks(start: Message, parameters: Message) -> tuple[tuple[str, ...], set[str]]:
    """Return the tracks to expect, in the order of their channels, and the members that name unknown tracks.

    Without a statement both tracks are expected, because audio of an unexpected track would be left out.
    """
    odd: set[str] = set()
    # Telnyx does not state its tracks. The URL or a parameter may, in Telnyx's own words.
    for stated in (start.get("tracks"), parameters.get("tracks")):
        if stated is None:
            continue
        tracks = stated if isinstance(stated, list) else [stated]
        named = [str(each).removesuffix("s").removesuffix("_track") for each in tracks]
        if named == ["both"]:
            return _TRACKS, odd
        if named and set(named).issubset(_TRACKS):
            return tuple(track for track in _TRACKS if track in named), odd
        odd.add("tracks")
    return _TRACKS, odd


def _media(form: Message, spelling: _Spelling, parameters: Message, *, channels: int) -> Media:
    encoding = form.get("encoding")
    codec = _CODECS.get(encoding) if isinstance(encoding, str) else None
    rate = number(form, spelling.sample_rate)
    if codec is None or rate is None or number(form, "channels") not in {None, 1}:
        raise UnsupportedMedia(
            "the stream's encoding is not one the vault can keep and play",
            hint="let each track be mono PCMU, PCMA or L16: for Telnyx stream_codec, Twilio sends nothing else",
        )
    if codec is Codec.S16LE:
        # The specification says "RTP payload", whose L16 is big endian (RFC 3551 section 4.5.11). Most users found
        # little endian on the wire.
        codec = _L16.get(str(parameters.get("byteorder", "le")))
        if codec is None:
            raise Invalid("byteorder is le (the default) or be")
    return raw_media(codec, rate=rate, channels=channels)


def _facts(
    start: Message, custom: Message, query: Mapping[str, str], spelling: _Spelling, *, odd: set[str]
) -> CallFacts:
    """Return the facts of the call. A parameter outranks a member of `start`, except those in `spelling.kept`.

    The members in `odd` are unusable and noted as such.
    """
    read = custom, start, query
    custom = {**address_facts(query), **custom}
    parties = {name: start[name] for name in ("from", "to") if name in start}
    own = {name: start[name] for name in spelling.kept if name in start}
    document = {**parties, **custom, **own}
    # Twilio also sends outbound-api and outbound-dial.
    direction = str(document.get("direction", "")).partition("-")[0]
    listed, added = start.get("tags"), _text(custom, "tags")
    tags = [*(listed if isinstance(listed, list) else ()), *(added.split(",") if added else ())]
    facts = call_facts({**document, "direction": direction}, known=_KNOWN, read=read)
    reading = Reading()
    for name in sorted(odd):
        reading.leave_out(name, Unusable.VALUE)
    usable = reading.tags("tags", [tag for tag in tags if isinstance(tag, str)])
    return replace(facts, tags=usable, unusable={**facts.unusable, **reading.unusable})


def _events(decided: Sequence[bytes | Missing]) -> Sequence[Event]:
    events: list[Event] = []
    for part in decided:
        if isinstance(part, bytes):
            events += (Audio(part[at : at + _MOST_AUDIO]) for at in range(0, len(part), _MOST_AUDIO))
        else:
            events.append(Gap(missing_ms=part.ms))
    return events
