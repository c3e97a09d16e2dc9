"""The base of protocols that describe the call in text messages and send samples in binary messages."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

from vault.errors import Invalid
from vault.media.descriptor import SAMPLE_BYTES
from vault.model import Media
from vault.protocol.live.events import Audio, Breakage, Ended, Event, Handshake, Say, Started

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
