"""jambonz `listen`, FreeSWITCH's mod_audio_fork and mod_audio_stream: metadata in JSON, then 16-bit samples.

After jambonz-feature-server `lib/tasks/listen.js` and `lib/session/call-info.js`, jambonz freeswitch-modules
`mod_audio_fork/audio_pipe.cpp` and `mod_audio_fork.c`, and the README of amigniter/mod_audio_stream. Samples are little
endian in messages of any size; a stereo fork has the caller first. A zero-length message requests a graceful end.
Nothing is sent back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from vault.errors import Invalid
from vault.media.descriptor import raw_media
from vault.model import Codec, Media
from vault.protocol.facts.json_text import Members
from vault.protocol.facts.metadata import (
    UNREADABLE,
    address_facts,
    call_facts,
    call_key,
    dtmf,
    number,
    parse_object,
    unreadable,
)
from vault.protocol.facts.stated import Unusable
from vault.protocol.live.binary import TEXT_FIRST, BinaryDialect, Kind, State, Transitions
from vault.protocol.live.events import Event, Handshake, Started

SUBPROTOCOLS: Final = frozenset({"audio.jambonz.org", "audio.drachtio.org", "audiostream.drachtio.org"})

_KEYS: Final = ("call_key", "callSid", "call_sid", "uuid", "call_uuid", "callUuid", "callId", "call_id", "callid")
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
        return Started(call_key=call_key(document, _KEYS), media=_media(document, query, first), facts=facts)

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
