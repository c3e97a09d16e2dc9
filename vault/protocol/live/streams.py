"""Protocols over plain TCP: AudioSocket, and what `rtpengine-recording --tcp-send-to` writes.

Frames are `type u8 | length u16, big endian | payload`; facts from
docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket and from Asterisk's res/res_audiosocket.c and
include/asterisk/res_audiosocket.h. Asterisk ends a call by closing the socket, which the protocol permits in place of a
hangup frame. A frame that the close cuts off is ignored.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar, Final
from uuid import UUID

from vault.errors import Invalid
from vault.ids import call_key_of
from vault.model import CallFacts, Codec, Container, Media
from vault.protocol.facts.stated import Reading, cut
from vault.protocol.live.events import Audio, Breakage, Broken, Dtmf, Ended, Event, Say, Started

# -- Asterisk's AudioSocket -----------------------------------------------------------------------------------------

ORDERLY: Final = 0
"""The code for `closed` when the other end closed a TCP connection; None means a broken connection."""

_HEADER: Final = 3
_UUID_BYTES: Final = 16
_SAMPLE_BYTES: Final = 2
_FIRST_AUDIO: Final = 0x10
_RATES: Final = (8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000)
"""The rates of types 0x10, 0x11, … 0x18 in Hz."""
_DIGITS: Final = b"0123456789ABCD*#"


class _Kind(enum.Enum):
    HANGUP = 0x00
    UUID = 0x01
    DTMF = 0x03
    AUDIO = _FIRST_AUDIO
    ERROR = 0xFF
    OTHER = -1
    """An unknown type below those of audio; it carries no audio."""


class _State(enum.Enum):
    UNNAMED = enum.auto()
    NAMED = enum.auto()
    """The call is known. The first audio frame tells its rate."""
    STREAMING = enum.auto()
    ENDED = enum.auto()


class AudioSocket:
    """The machine of one connection; a message is any number of bytes."""

    name: ClassVar[str] = "audiosocket"

    def __init__(self) -> None:
        self._state = _State.UNNAMED
        self._pending = bytearray()
        """An incomplete frame, at most 65,537 bytes, or a frame that is refused with the next bytes."""
        self._call = ""
        self._type = 0
        """The audio type of this call."""
        self._breakage = Breakage()

    def receive(self, message: str | bytes) -> Sequence[Event]:
        """Receive the next bytes; Invalid for a frame that the state does not permit."""
        if isinstance(message, str):
            raise Invalid("AudioSocket is bytes")
        self._pending += message
        events: list[Event] = []
        start = 0
        while len(self._pending) > start:
            try:
                end = self._end(start)
                if len(self._pending) < end:
                    break
                payload = bytes(self._pending[start + _HEADER : end])
                events += self._step(self._pending[start])(self, self._pending[start], payload)
            except Invalid:
                if not events:
                    raise
                break  # the events before it must be kept first; it is refused with the next bytes
            start = end
        del self._pending[:start]
        return _joined(events)

    def waiting(self) -> int:
        """Return the audio bytes of an incomplete frame; 0 until its header is complete."""
        begun = self._state is _State.STREAMING and len(self._pending) > _HEADER and self._pending[0] == self._type
        return int.from_bytes(self._pending[1:_HEADER], "big") if begun else 0

    def idle(self) -> Sequence[Event]:
        """Return nothing: an incomplete frame is not audio yet."""
        return ()

    def closed(self, code: int | None) -> Sequence[Event]:
        """End the call. An orderly close between two frames is a hangup."""
        if self._state is not _State.STREAMING:
            return ()
        self._state = _State.ENDED
        clean = code == ORDERLY and not self._pending
        return (Ended(clean=clean, reason="closed" if clean else "connection_lost"),)

    def closing_messages(self) -> Sequence[Say]:
        """Return nothing: Asterisk would play any bytes as audio."""
        return ()

    # -- frames, as in the table below --------------------------------------------------------------------------

    def _end(self, start: int) -> int:
        """Return where the frame ends that begins at `start`, or where its header ends until that is complete."""
        self._step(self._pending[start])  # refuses a stream that is not AudioSocket before its frame is complete
        size = int.from_bytes(self._pending[start + 1 : start + _HEADER], "big")
        return start + _HEADER + (size if len(self._pending) >= start + _HEADER else 0)

    def _step(self, number: int) -> Callable[[Any, int, bytes], Sequence[Event]]:
        kind = _kind(number)
        step = None if kind is None else self._STEPS.get((self._state, kind))
        if step is None and self._state is _State.STREAMING:
            return AudioSocket._left_out
        if step is None:
            raise Invalid("an AudioSocket frame came that this point of the call does not permit")
        return step

    def _left_out(self, number: int, payload: bytes) -> Sequence[Event]:  # noqa: ARG002  # the table's shape
        return self._breakage.left_out(Broken.TRACK if _kind(number) is None else Broken.ORDER)

    def _named(self, _: int, payload: bytes) -> Sequence[Event]:
        if len(payload) != _UUID_BYTES:
            raise Invalid("AudioSocket begins with a UUID of 16 bytes")
        self._call = str(UUID(bytes=payload))
        self._state = _State.NAMED
        return ()

    def _first(self, number: int, payload: bytes) -> Sequence[Event]:
        rate = _RATES[number - _FIRST_AUDIO]
        media = Media(container=Container.RAW, codec=Codec.S16LE, rate=rate, channels=1)
        self._type = number
        self._state = _State.STREAMING
        return (Started(call_key=self._call, media=media), *self._audio(number, payload))

    def _audio(self, number: int, payload: bytes) -> Sequence[Event]:
        if number != self._type:
            return self._breakage.left_out(Broken.TRACK)
        if len(payload) % _SAMPLE_BYTES:
            return self._breakage.left_out(Broken.PAYLOAD)
        self._breakage.sound += 1
        return (Audio(payload),) if payload else ()

    def _dtmf(self, _: int, payload: bytes) -> Sequence[Event]:
        return (Dtmf(digit=payload.decode()),) if len(payload) == 1 and payload in _DIGITS else ()

    def _hangup(self, _: int, payload: bytes) -> Sequence[Event]:  # noqa: ARG002  # the table's shape
        self._state = _State.ENDED
        return (Ended(clean=True, reason="hangup"),)

    def _failed(self, _: int, payload: bytes) -> Sequence[Event]:  # noqa: ARG002  # likewise
        self._state = _State.ENDED
        return (Ended(clean=False, reason="recorder_error"),)

    def _nothing(self, _: int, payload: bytes) -> Sequence[Event]:  # noqa: ARG002  # likewise
        return ()

    _STEPS: ClassVar[Mapping[tuple[_State, _Kind], Callable[[Any, int, bytes], Sequence[Event]]]] = {
        (_State.UNNAMED, _Kind.UUID): _named,
        (_State.UNNAMED, _Kind.HANGUP): _hangup,
        (_State.UNNAMED, _Kind.ERROR): _failed,
        (_State.NAMED, _Kind.AUDIO): _first,
        (_State.NAMED, _Kind.DTMF): _nothing,
        (_State.NAMED, _Kind.HANGUP): _hangup,
        (_State.NAMED, _Kind.ERROR): _failed,
        (_State.NAMED, _Kind.OTHER): _nothing,
        (_State.STREAMING, _Kind.AUDIO): _audio,
        (_State.STREAMING, _Kind.DTMF): _dtmf,
        (_State.STREAMING, _Kind.HANGUP): _hangup,
        (_State.STREAMING, _Kind.ERROR): _failed,
        (_State.STREAMING, _Kind.OTHER): _nothing,
    }


def _kind(number: int) -> _Kind | None:
    """Return the kind of a frame of this type; None for an unknown type that may be audio."""
    if _FIRST_AUDIO <= number < _FIRST_AUDIO + len(_RATES):
        return _Kind.AUDIO
    if number < _FIRST_AUDIO:
        return _Kind(number) if number in {_Kind.HANGUP.value, _Kind.UUID.value, _Kind.DTMF.value} else _Kind.OTHER
    if number == _Kind.ERROR.value:
        return _Kind.ERROR
    return None


def _joined(events: Sequence[Event]) -> Sequence[Event]:
    """Return the events with adjacent audio joined, so that it is sealed as one piece."""
    joined: list[Event] = []
    for audio, group in groupby(events, key=lambda event: isinstance(event, Audio)):
        if audio:
            joined.append(Audio(b"".join(each.data for each in group if isinstance(each, Audio))))
        else:
            joined += group
    return joined


# -- rtpengine-recording over TCP -----------------------------------------------------------------------------------
# What `rtpengine-recording --tcp-send-to` writes: a text that ends with a NUL byte, then headerless samples.
#
# From sipwise/rtpengine, recording-daemon/tls_send.c: `tls_fwd_add` writes the metadata of the tag, else of the call,
# else an empty text, with its `\0`. Then it writes frames as interleaved s16 in the machine's byte order (little
# endian where it runs). `tls_fwd_shutdown` closes the socket without a further message. A new connection begins with
# the text again. The metadata is what the `metadata` key of the ng protocol set, `key:value|key:value` by convention
# (docs/ng_control_protocol.md, recording-daemon/metafile.c).

_MAX_INTRO: Final = 8_192
_MAX_PAIRS: Final = 32
_KEYS: Final = ("call_key", "call-key", "call_id", "call-id", "callid")
_CALLERS: Final = ("caller", "from")
_CALLED: Final = ("called", "to")


class _Reading(enum.Enum):
    INTRODUCING = enum.auto()
    STREAMING = enum.auto()
    ENDED = enum.auto()


class RtpengineTcp:
    """The machine of one connection; a message is any number of bytes. Rate and channels are the daemon's settings."""

    name: ClassVar[str] = "rtpengine_tcp"

    def __init__(self, *, rate: int, channels: int) -> None:
        self._media = Media(container=Container.RAW, codec=Codec.S16LE, rate=rate, channels=channels)
        self._state = _Reading.INTRODUCING
        self._pending = b""
        """The text so far, or the beginning of an incomplete sample frame."""
        self._opening: tuple[Started, ...] = ()
        """The event that is returned with the first samples: a stream without samples is not recorded."""

    def receive(self, message: str | bytes) -> Sequence[Event]:
        """Receive the next bytes; Invalid after the end."""
        step = self._STEPS.get(self._state)
        if isinstance(message, str) or step is None:
            raise Invalid("nothing comes after the end of a stream")
        return step(self, message)

    def waiting(self) -> int:
        """Return the size of a frame that has begun."""
        return _SAMPLE_BYTES * self._media.channels if self._state is _Reading.STREAMING and self._pending else 0

    def idle(self) -> Sequence[Event]:
        """Return nothing: less than one sample frame is held back."""
        return ()

    def closed(self, code: int | None) -> Sequence[Event]:
        """End the stream; an orderly close between two sample frames is a clean end."""
        if self._state is not _Reading.STREAMING or self._opening:
            return ()
        self._state = _Reading.ENDED
        clean = code == ORDERLY and not self._pending
        return (Ended(clean=clean, reason="closed" if clean else "connection_lost"),)

    def closing_messages(self) -> Sequence[Say]:
        """Return nothing: the daemon does not read."""
        return ()

    # -- states, as in the table below --------------------------------------------------------------------------

    def _introduced(self, data: bytes) -> Sequence[Event]:
        intro, end, rest = (self._pending + data).partition(b"\0")
        if len(intro) > _MAX_INTRO:
            raise Invalid("the stream's metadata does not end", hint="this listener is for rtpengine's --tcp-send-to")
        self._pending = b"" if end else intro
        if not end:
            return ()
        self._state = _Reading.STREAMING
        key, facts = _understood(intro.decode(errors="surrogateescape"))
        self._opening = (Started(call_key=key, media=self._media, facts=facts),)
        return self._audio(rest)

    def _audio(self, data: bytes) -> Sequence[Event]:
        data = self._pending + data
        whole = len(data) - len(data) % (_SAMPLE_BYTES * self._media.channels)
        self._pending = data[whole:]
        if not whole:
            return ()
        opening, self._opening = self._opening, ()
        return (*opening, Audio(data[:whole]))

    _STEPS: ClassVar[Mapping[_Reading, Callable[[Any, bytes], Sequence[Event]]]] = {
        _Reading.INTRODUCING: _introduced,
        _Reading.STREAMING: _audio,
    }


def _understood(text: str) -> tuple[str | None, CallFacts]:
    """Return the call key and the facts in the metadata; a text without pairs is the call key."""
    reading = Reading()
    pairs: dict[str, str] = {}
    for part in text.split("|")[:_MAX_PAIRS]:
        name, colon, value = part.partition(":")
        if colon and name.strip():
            reading.keep_first(pairs, cut(name.strip().lower()), value.strip())
    if not pairs:
        return _key(text.strip()), CallFacts()
    direction = reading.direction("direction", pairs.pop("direction", None))
    caller, called = _first(pairs, _CALLERS), _first(pairs, _CALLED)
    key = _key(next((pairs[name] for name in _KEYS if pairs.get(name)), ""))
    for name in _KEYS[:2]:
        pairs.pop(name, None)
    return key, CallFacts(
        caller=reading.text("from", caller),
        called=reading.text("to", called),
        direction=direction,
        extra={name: kept for name, text in pairs.items() if (kept := reading.text(name, text)) is not None},
        unusable=reading.unusable,
    )


def _first(pairs: dict[str, str], names: Sequence[str]) -> str:
    found = [pairs.pop(name, "") for name in names]
    return next((each for each in found if each), "")


def _key(text: str) -> str | None:
    return call_key_of(text) if text else None
