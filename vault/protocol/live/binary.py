"""The frame of every dialect that says in text which call it is and sends its samples in binary messages."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

from vault.errors import Invalid
from vault.media.descriptor import SAMPLE_BYTES
from vault.model import Media
from vault.protocol.live.bad_frames import Breakage
from vault.protocol.live.events import Audio, Ended, Event, Handshake, Say, Started

_CLEAN_CLOSES: Final = frozenset({1000, 1005, 0})
"""RFC 6455 section 7.4.1: a normal closure, or a close without a code, which some libraries tell as 0."""


class State(enum.IntEnum):
    """`fresh → streaming → over`."""

    FRESH = enum.auto()
    STREAMING = enum.auto()
    OVER = enum.auto()


class Kind(enum.IntEnum):
    """What a message is before anybody reads it."""

    TEXT = enum.auto()
    SAMPLES = enum.auto()
    EMPTY = enum.auto()


class SampleFrames:
    """Cuts a byte stream where a sample of every channel ends; remembers less than one such frame."""

    def __init__(self, media: Media) -> None:
        self._size = SAMPLE_BYTES[media.codec] * media.channels
        self._rest = b""

    @property
    def waiting(self) -> int:
        """The bytes of the frame that has begun, whole."""
        return self._size if self._rest else 0

    def take(self, data: bytes) -> bytes:
        """Return the whole frames that there are now, perhaps none."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if odd := len(data) % self._size:
            self._rest = data[-odd:]
            return data[:-odd]
        return data


class BinaryDialect(ABC):
    """One connection. What is kept is whole sample frames, wherever the recorder cuts its messages."""

    name: ClassVar[str]
    transitions: ClassVar[Transitions]
    """What each state permits; everything else is Invalid."""

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake
        self._state = State.FRESH
        self._frames: SampleFrames
        self.breakage = Breakage()

    @abstractmethod
    def started(self, first: str | bytes) -> Started:
        """Read the first message; raise Invalid or UnsupportedMedia, saying what to send instead."""

    @abstractmethod
    def told(self, text: str) -> Sequence[Event]:
        """Read a later text; what is not understood is not about the recording."""

    def receive(self, message: str | bytes) -> Sequence[Event]:
        """Take one whole message; Invalid for what this state does not permit."""
        kind = Kind.TEXT if isinstance(message, str) else Kind.SAMPLES if message else Kind.EMPTY
        if (transition := self.transitions.get((self._state, kind))) is None:
            raise Invalid("audio came before the text that says which call it is, or something after the end")
        self._state, step = transition
        return step(self, message)

    def begin(self, first: str | bytes) -> Sequence[Event]:
        """Start the recording; a first message of samples is its first audio."""
        started = self.started(first)
        self._frames = SampleFrames(started.media)
        return (started,) if isinstance(first, str) else (started, *self.keep(first))

    def tell(self, text: str | bytes) -> Sequence[Event]:
        """Read a later text."""
        assert isinstance(text, str)
        return self.told(text)

    def keep(self, samples: str | bytes) -> Sequence[Event]:
        """Keep the sample frames that are whole by now."""
        assert not isinstance(samples, str)
        self.breakage.sound += 1
        whole = self._frames.take(samples)
        return (Audio(whole),) if whole else ()

    def finish(self, _: str | bytes) -> Sequence[Event]:
        """End the recording at the recorder's word."""
        return (Ended(clean=True, reason="the recorder said so"),)

    def nothing(self, _: str | bytes) -> Sequence[Event]:
        """Pass a message over."""
        return ()

    def waiting(self) -> int:
        """Return the size of a frame that has begun."""
        return self._frames.waiting if self._state is State.STREAMING else 0

    def idle(self) -> Sequence[Event]:
        """Return nothing: a recorder that pauses says so by sending nothing."""
        return ()

    def closed(self, code: int | None) -> Sequence[Event]:
        """End the recording, cleanly if the recorder closed without an error; an unfinished sample is not kept."""
        if self._state is not State.STREAMING:
            return ()
        self._state = State.OVER
        if code in _CLEAN_CLOSES:
            return (Ended(clean=True, reason="closed"),)
        return (Ended(clean=False, reason="the connection broke" if code is None else f"closed with {code}"),)

    def kept(self) -> Sequence[Say]:
        """Return nothing: the close is the answer."""
        return ()


Step = Callable[[BinaryDialect, str | bytes], Sequence[Event]]
Transitions = Mapping[tuple[State, Kind], tuple[State, Step]]

TEXT_FIRST: Final[Transitions] = {
    (State.FRESH, Kind.TEXT): (State.STREAMING, BinaryDialect.begin),
    (State.STREAMING, Kind.TEXT): (State.STREAMING, BinaryDialect.tell),
    (State.STREAMING, Kind.SAMPLES): (State.STREAMING, BinaryDialect.keep),
    (State.STREAMING, Kind.EMPTY): (State.STREAMING, BinaryDialect.nothing),
}
"""A text says which call it is, then come samples and more texts in any order; the close is the end."""
