r"""What `rtpengine-recording --tcp-send-to` writes: a text that ends with a NUL byte, then headerless samples.

From sipwise/rtpengine, recording-daemon/tls_send.c: `tls_fwd_add` writes the metadata of the tag, else of the call,
else an empty text, with its `\0`. Then it writes frames as interleaved s16 in the machine's byte order (little endian
where it runs). `tls_fwd_shutdown` closes the socket without a further message. A new connection begins with the text
again. The metadata is what the `metadata` key of the ng protocol set, `key:value|key:value` by convention
(docs/ng_control_protocol.md, recording-daemon/metafile.c).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from vault.errors import Invalid
from vault.ids import call_key_of
from vault.model import CallFacts, Codec, Container, Media
from vault.protocol.facts.stated import Reading, cut
from vault.protocol.live.audiosocket import ORDERLY
from vault.protocol.live.events import Audio, Ended, Event, Say, Started

_MAX_INTRO: Final = 8_192
_MAX_PAIRS: Final = 32
_SAMPLE_BYTES: Final = 2
_KEYS: Final = ("call_key", "call-key", "call_id", "call-id", "callid")
_CALLERS: Final = ("caller", "from")
_CALLED: Final = ("called", "to")


class _State(enum.Enum):
    INTRODUCING = enum.auto()
    STREAMING = enum.auto()
    ENDED = enum.auto()


class RtpengineTcp:
    """The machine of one connection; a message is any number of bytes. Rate and channels are the daemon's settings."""

    name: ClassVar[str] = "rtpengine_tcp"

    def __init__(self, *, rate: int, channels: int) -> None:
        self._media = Media(container=Container.RAW, codec=Codec.S16LE, rate=rate, channels=channels)
        self._state = _State.INTRODUCING
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
        return _SAMPLE_BYTES * self._media.channels if self._state is _State.STREAMING and self._pending else 0

    def idle(self) -> Sequence[Event]:
        """Return nothing: less than one sample frame is held back."""
        return ()

    def closed(self, code: int | None) -> Sequence[Event]:
        """End the stream; an orderly close between two sample frames is a clean end."""
        if self._state is not _State.STREAMING or self._opening:
            return ()
        self._state = _State.ENDED
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
        self._state = _State.STREAMING
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

    _STEPS: ClassVar[Mapping[_State, Callable[[Any, bytes], Sequence[Event]]]] = {
        _State.INTRODUCING: _introduced,
        _State.STREAMING: _audio,
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
