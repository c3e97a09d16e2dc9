"""Protocols that describe the call in text messages and send samples in binary ones: their base, and each of them."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from vault.errors import Invalid, UnsupportedMedia
from vault.media.descriptor import SAMPLE_BYTES, TELEPHONE_RATE, parse_content_type, raw_media
from vault.model import Codec, Media
from vault.protocol.facts.metadata import (
    MAX_TEXT,
    UNREADABLE,
    Members,
    address_facts,
    call_facts,
    call_key,
    dtmf,
    first_of_each,
    number,
    parse_object,
    unreadable,
)
from vault.protocol.facts.stated import Unusable
from vault.protocol.live.events import Audio, Breakage, Broken, Ended, Event, Handshake, Say, Started

# -- what these protocols share -------------------------------------------------------------------------------------

_CLEAN_CLOSES: Final = frozenset({1000, 1005, 0})
"""RFC 6455 section 7.4.1: a normal closure, or a close without a code, which some libraries report as 0."""


class State(enum.IntEnum):
    """`fresh → streaming → over`."""

    FRESH = enum.auto()
    STREAMING = enum.auto()
    OVER = enum.auto()


class Kind(enum.IntEnum):
    """The kind of a message."""

    TEXT = enum.auto()
    SAMPLES = enum.auto()
    EMPTY = enum.auto()


class SampleFrames:
    """Cuts a byte stream into whole sample frames (one sample of each channel); holds less than one frame."""

    def __init__(self, media: Media) -> None:
        self._size = SAMPLE_BYTES[media.codec] * media.channels
        self._rest = b""

    @property
    def waiting(self) -> int:
        """The size in bytes of a frame that has begun; 0 between two frames."""
        return self._size if self._rest else 0

    def take(self, data: bytes) -> bytes:
        """Add bytes and return the frames that are complete with them."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if odd := len(data) % self._size:
            self._rest = data[-odd:]
            return data[:-odd]
        return data


class BinaryDialect(ABC):
    """The machine of one connection. It keeps whole sample frames, however the recorder cuts its messages."""

    name: ClassVar[str]
    transitions: ClassVar[Transitions]
    """What each state permits; other messages are Invalid."""

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake
        self._state = State.FRESH
        self._frames: SampleFrames
        self.breakage = Breakage()

    @abstractmethod
    def started(self, first: str | bytes) -> Started:
        """Read the first message; Invalid or UnsupportedMedia, whose message tells what to send instead."""

    @abstractmethod
    def read_text(self, text: str) -> Sequence[Event]:
        """Read a later text; one that is not about the recording is ignored."""

    def receive(self, message: str | bytes) -> Sequence[Event]:
        """Receive one whole message; Invalid if the state does not permit it."""
        kind = Kind.TEXT if isinstance(message, str) else Kind.SAMPLES if message else Kind.EMPTY
        if (transition := self.transitions.get((self._state, kind))) is None:
            raise Invalid("audio came before the text that describes the call, or a message came after the end")
        self._state, step = transition
        return step(self, message)

    def begin(self, first: str | bytes) -> Sequence[Event]:
        """Start the recording; a first message of samples is its first audio."""
        started = self.started(first)
        self._frames = SampleFrames(started.media)
        return (started,) if isinstance(first, str) else (started, *self.keep(first))

    def later_text(self, text: str | bytes) -> Sequence[Event]:
        """Read a later text."""
        assert isinstance(text, str)
        return self.read_text(text)

    def keep(self, samples: str | bytes) -> Sequence[Event]:
        """Return the sample frames that are complete."""
        assert not isinstance(samples, str)
        self.breakage.sound += 1
        whole = self._frames.take(samples)
        return (Audio(whole),) if whole else ()

    def finish(self, _: str | bytes) -> Sequence[Event]:
        """End the recording because the recorder requested it."""
        return (Ended(clean=True, reason="the recorder said so"),)

    def nothing(self, _: str | bytes) -> Sequence[Event]:
        """Ignore a message."""
        return ()

    def waiting(self) -> int:
        """Return the size of a frame that has begun."""
        return self._frames.waiting if self._state is State.STREAMING else 0

    def idle(self) -> Sequence[Event]:
        """Return nothing: no audio is held back, and a recorder may send nothing for a while."""
        return ()

    def closed(self, code: int | None) -> Sequence[Event]:
        """End the recording, cleanly if the recorder closed without an error; an incomplete sample is dropped."""
        if self._state is not State.STREAMING:
            return ()
        self._state = State.OVER
        if code in _CLEAN_CLOSES:
            return (Ended(clean=True, reason="closed"),)
        return (Ended(clean=False, reason="the connection broke" if code is None else f"closed with {code}"),)

    def closing_messages(self) -> Sequence[Say]:
        """Return nothing: the recorder only sees the close."""
        return ()


Step = Callable[[BinaryDialect, str | bytes], Sequence[Event]]
Transitions = Mapping[tuple[State, Kind], tuple[State, Step]]

TEXT_FIRST: Final[Transitions] = {
    (State.FRESH, Kind.TEXT): (State.STREAMING, BinaryDialect.begin),
    (State.STREAMING, Kind.TEXT): (State.STREAMING, BinaryDialect.later_text),
    (State.STREAMING, Kind.SAMPLES): (State.STREAMING, BinaryDialect.keep),
    (State.STREAMING, Kind.EMPTY): (State.STREAMING, BinaryDialect.nothing),
}
"""A text describes the call, then samples and further texts come in any order; the close is the end."""


# -- Asterisk's chan_websocket --------------------------------------------------------------------------------------
# Asterisk's WebSocket channel driver, with control messages in plain text and in JSON.
#
# After `channels/chan_websocket.c` of Asterisk 20.16, 21.11, 22.6 and 23.0, and docs.asterisk.org, "WebSocket". Media
# has the channel's codec, mono, one frame a message. Signed linear is in the host's byte order, taken to be little
# endian. A hangup is a close with 1000. Nothing is sent back.

_START: Final = "MEDIA_START"
_FORMATS: Final[Mapping[str, tuple[Codec, int]]] = {
    "ulaw": (Codec.PCMU, TELEPHONE_RATE),
    "alaw": (Codec.PCMA, TELEPHONE_RATE),
    "slin": (Codec.S16LE, TELEPHONE_RATE),
    **{
        f"slin{rate // 1000}": (Codec.S16LE, rate)
        for rate in (12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000)
    },
}
_ASTERISK: Final = frozenset({"event", "format", "optimal_frame_size", "ptime"})


class Asterisk(BinaryDialect):
    """One channel. The call key is the channel's unique id; the connection's id names a configuration, not a call."""

    name: ClassVar[str] = "asterisk"
    transitions: ClassVar[Transitions] = TEXT_FIRST

    def started(self, first: str | bytes) -> Started:
        """Read MEDIA_START; UnsupportedMedia unless the format is G.711 or signed linear."""
        document, query = _control(first), self._handshake.query
        codec = _FORMATS.get(str(document.get("format")))
        if codec is None:
            raise UnsupportedMedia(
                "this format cannot be kept as it is: dial with c(ulaw), c(alaw), c(slin) or c(slin16)"
            )
        return Started(
            call_key=call_key(document, ("channel_id",)),
            media=raw_media(codec[0], rate=codec[1], channels=1),
            facts=call_facts({**address_facts(query), **document}, known=_ASTERISK, read=(document, query)),
        )

    def read_text(self, text: str) -> Sequence[Event]:
        """Read DTMF_END; other events are ignored."""
        event = _control(text)
        return dtmf(event.get("digit")) if event.get("event") == "DTMF_END" else ()


def _control(message: str | bytes) -> Mapping[str, Any]:
    """Return the members of a control message, `EVENT name:value …` or a JSON object, with its `event`."""
    if not isinstance(message, str) or len(message) > MAX_TEXT:
        return {}
    if message.startswith("{"):
        return parse_object(message) or Members()
    event, *words = message.split()[:16] or [""]
    members = ((name, value) for name, colon, value in (word.partition(":") for word in words) if colon)
    return first_of_each([("event", event), *members])


def recognise_asterisk(handshake: Handshake, first: str | bytes) -> Asterisk | None:
    """Return a new machine if the first message is MEDIA_START, in text or JSON; else None."""
    return Asterisk(handshake) if _control(first).get("event") == _START else None


# -- jambonz and FreeSWITCH -----------------------------------------------------------------------------------------
# jambonz `listen`, FreeSWITCH's mod_audio_fork and mod_audio_stream: metadata in JSON, then 16-bit samples.
#
# After jambonz-feature-server `lib/tasks/listen.js` and `lib/session/call-info.js`, jambonz freeswitch-modules
# `mod_audio_fork/audio_pipe.cpp` and `mod_audio_fork.c`, and the README of amigniter/mod_audio_stream. Samples are
# little endian in messages of any size; a stereo fork has the caller first. A zero-length message requests a graceful
# end. Nothing is sent back.

SUBPROTOCOLS: Final = frozenset({"audio.jambonz.org", "audio.drachtio.org", "audiostream.drachtio.org"})

_JAMBONZ_KEYS: Final = (
    "call_key",
    "callSid",
    "call_sid",
    "uuid",
    "call_uuid",
    "callUuid",
    "callId",
    "call_id",
    "callid",
)
_MEDIA: Final = frozenset({"sampleRate", "mixType"})
_CHANNELS: Final[Mapping[str, int]] = {"mono": 1, "mixed": 1, "stereo": 2}
_CODECS: Final[Mapping[str, Codec]] = {
    "l16": Codec.S16LE,
    "l16be": Codec.S16BE,
    "pcmu": Codec.PCMU,
    "ulaw": Codec.PCMU,
    "pcma": Codec.PCMA,
    "alaw": Codec.PCMA,
}
_DTMF_RATE: Final = 8_000
"""FreeSWITCH states the duration of a key in samples at this rate."""


class AudioFork(BinaryDialect):
    """A connection whose first text has `sampleRate`, or which offered the modules' subprotocol."""

    name: ClassVar[str] = "audio_fork"
    transitions: ClassVar[Transitions] = {
        **TEXT_FIRST,
        (State.STREAMING, Kind.EMPTY): (State.OVER, BinaryDialect.finish),
    }

    def started(self, first: str | bytes) -> Started:
        """Read the metadata; values that it lacks are taken from the URL."""
        query = self._handshake.query
        document = parse_object(first) or Members()
        facts = call_facts({**address_facts(query), **document}, known=_MEDIA, read=(document, query))
        if unreadable(first):
            facts = replace(facts, unusable={**facts.unusable, "others": Unusable.FORM.value})
        return Started(call_key=call_key(document, _JAMBONZ_KEYS), media=_media(document, query, first), facts=facts)

    def read_text(self, text: str) -> Sequence[Event]:
        """Read `{"event":"dtmf","dtmf":"3","duration":"1600"}`; other events are ignored."""
        event = parse_object(text) or Members()
        if event.get("event") != "dtmf":
            return ()
        try:
            samples = number(event, "duration")
        except Invalid:
            samples = None
        return dtmf(event.get("dtmf"), None if samples is None else samples * 1000 // _DTMF_RATE)


class AudioStream(AudioFork):
    """A connection whose URL has `rate`: its first text may be anything, and may be missing."""

    name: ClassVar[str] = "audio_stream"
    transitions: ClassVar[Transitions] = {
        **AudioFork.transitions,
        (State.FRESH, Kind.SAMPLES): (State.STREAMING, BinaryDialect.begin),
    }


def _media(document: Mapping[str, Any], query: Mapping[str, str], first: str | bytes) -> Media:
    rate = number(document, "sampleRate") or number(query, "rate")
    if rate is None and unreadable(first):
        raise Invalid(UNREADABLE)
    if rate is None:
        raise Invalid("the metadata has no sampleRate: add it, or put ?rate=8000&channels=1 in the URL")
    codec = _CODECS.get(query.get("codec", "l16").lower())
    if codec is None:
        raise Invalid("the codec in the URL is not l16, l16be, pcmu or pcma")
    return raw_media(codec, rate=rate, channels=_channels(document, query))


def _channels(document: Mapping[str, Any], query: Mapping[str, str]) -> int:
    match document.get("mixType"):
        case None:
            channels = number(query, "channels")
            return 1 if channels is None else channels
        case str() as mix if mix in _CHANNELS:
            return _CHANNELS[mix]
    raise Invalid("mixType is mono, mixed or stereo")


def recognise_audio_stream(handshake: Handshake, first: str | bytes) -> AudioStream | None:
    """Return a new machine if the URL has a `rate`, else None."""
    del first
    return AudioStream(handshake) if "rate" in handshake.query else None


def recognise_audio_fork(handshake: Handshake, first: str | bytes) -> AudioFork | None:
    """Return a new machine for metadata with `sampleRate`, or a subprotocol of jambonz or mod_audio_fork; else None."""
    if SUBPROTOCOLS.intersection(handshake.subprotocols) or "sampleRate" in (parse_object(first) or ()):
        return AudioFork(handshake)
    return None


# -- Vonage ---------------------------------------------------------------------------------------------------------
# Vonage Voice API: a call's mixed audio over WebSocket, as the NCCO action `connect` sends it.
#
# After developer.vonage.com, "WebSockets in the Vonage Voice API": the first text is `websocket:connected` with the
# content type and the NCCO's `headers` (at most 512 bytes), at the top level. Then come 16-bit little-endian samples,
# mono, 20 ms a message. Vonage sends no credential, so a header `token` may be one. Audio sent back would be played
# into the call, so nothing is sent.

_CONNECTED: Final = "websocket:connected"
_DTMF: Final = "websocket:dtmf"
_VONAGE_KEYS: Final = ("call_key", "call_uuid", "uuid", "conversation_uuid")
_VONAGE: Final = frozenset({"event", "content-type"})


class Vonage(BinaryDialect):
    """One leg of a call."""

    name: ClassVar[str] = "vonage"
    transitions: ClassVar[Transitions] = TEXT_FIRST

    def started(self, first: str | bytes) -> Started:
        """Read `websocket:connected`; UnsupportedMedia unless the content type is audio/l16."""
        document, query = parse_object(first) or Members(), self._handshake.query
        declared, token = document.get("content-type"), document.get("token")
        media = parse_content_type(declared) if isinstance(declared, str) and declared else None
        if media is None or media.codec not in {Codec.S16BE, Codec.S16LE}:
            raise UnsupportedMedia(
                "the content-type is not one that Vonage sends: ask for audio/l16;rate=16000 in the NCCO"
            )
        return Started(
            call_key=call_key(document, _VONAGE_KEYS),
            # audio/l16 is big endian elsewhere (RFC 2586); Vonage sends little endian under that name.
            media=replace(media, codec=Codec.S16LE),
            facts=call_facts({**address_facts(query), **document}, known=_VONAGE, read=(document, query)),
            token=token if isinstance(token, str) and token else None,
        )

    def read_text(self, text: str) -> Sequence[Event]:
        """Read `websocket:dtmf`, whose duration is in milliseconds; other events are ignored.

        A text that is not JSON is left out.
        """
        event = parse_object(text)
        if event is None:
            return self.breakage.left_out(Broken.FORM)
        return dtmf(event.get("digit"), event.get("duration")) if event.get("event") == _DTMF else ()


def recognise_vonage(handshake: Handshake, first: str | bytes) -> Vonage | None:
    """Return a new machine if the first message is `websocket:connected`, else None."""
    return Vonage(handshake) if (parse_object(first) or Members()).get("event") == _CONNECTED else None
