"""The events of a live protocol's machine, and its interface.

A machine has no I/O and no clock: messages go in, events come out. It raises `vault.errors.Invalid` for a message that
its state does not permit, and receives no more messages after that. A message that cannot be read during the call is
`LeftOut`, unless there are too many of them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Final, Protocol

from vault.errors import Invalid
from vault.model import CallFacts, Media

MOST: Final = 100
"""By how many the broken frames may exceed the sound ones at any time."""


class Broken(enum.StrEnum):
    """Why a frame was left out."""

    FORM = "form"
    """It is not a message of its protocol."""
    MEMBER = "member"
    """A member is missing, or its value does not fit its name."""
    TRACK = "track"
    """Its track or kind of audio was not announced."""
    PAYLOAD = "payload"
    """Its audio cannot be decoded, or ends within a sample."""
    LATE = "late"
    """It was repeated, or came after its place in the audio was filled."""
    ORDER = "order"
    """It is out of order or repeated."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A frame was left out; nothing of it is kept."""

    why: Broken


class Breakage:
    """Counts the broken frames of one connection. The reader increments `sound` for each sound frame."""

    def __init__(self) -> None:
        self.sound = 0
        self._weight = 0

    def left_out(self, why: Broken) -> Sequence[LeftOut]:
        """Count a broken frame and return its event; Invalid if broken frames exceed sound ones by more than MOST."""
        self._weight = max(self._weight - self.sound, 0) + 1
        self.sound = 0
        if self._weight > MOST:
            raise Invalid(
                f"more than {MOST} frames could not be read (the last: {why.value}); what could be is kept",
                hint="check what is between the recorder and the vault, and the recorder's version",
            )
        return (LeftOut(why),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The recorder has described the call and its audio. Only `Say` may come before it.

    `call_key` is None if the recorder names no call. `token` is a credential in the first message, for clients that can
    send no header.
    """

    call_key: str | None = field(repr=False)
    media: Media
    facts: CallFacts = field(default_factory=CallFacts, repr=False)
    started_at: datetime | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Audio:
    """1 byte to 1 MiB of audio in the announced media, to be stored unchanged."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """`missing_ms` milliseconds of the call are missing here and were not filled."""

    missing_ms: int


@dataclass(frozen=True, slots=True)
class Paused:
    """The following audio must not be kept, until `Resumed` or until the pause has lasted too long."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The following audio is kept again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dtmf:
    """A telephone key was pressed. It is dropped unless the tenant keeps keys."""

    digit: str = field(repr=False)
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Further facts of the call. Fields that are set replace earlier ones; tags and extras are added."""

    facts: CallFacts = field(repr=False)


@dataclass(frozen=True, slots=True)
class Say:
    """A message to send to the recorder now."""

    payload: str | bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The recorder has ended the call. Unless `clean`, the recording is truncated after its grace period."""

    clean: bool
    reason: str


Event = Started | Audio | Gap | Paused | Resumed | Dtmf | Facts | LeftOut | Say | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What is known of a connection before its first message: the offered subprotocols and the URL's query."""

    subprotocols: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict, repr=False)


class Dialect(Protocol):
    """The machine of one connection. Its memory is bounded."""

    name: ClassVar[str]
    """The `dialect` label of `callvault_ingest_bytes_total`."""

    def receive(self, message: str | bytes) -> Sequence[Event]:
        """Receive one whole message; Invalid if the state does not permit it."""

    def waiting(self) -> int:
        """Return how many bytes of audio are held back because a frame, a piece or a track is incomplete."""

    def idle(self) -> Sequence[Event]:
        """Return held audio and the end, if the protocol needs that after the idle time without a message."""

    def closed(self, code: int | None) -> Sequence[Event]:
        """Return held audio and `Ended` after the connection ended; `code` None means without a close.

        Without a started call, or after `Ended`, there are no events.
        """

    def closing_messages(self) -> Sequence[Say]:
        """Return the messages for the recorder once the end is durable, before the connection is closed."""
