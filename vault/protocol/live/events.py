"""What a live dialect's machine tells: the events in, and the messages out, of one connection.

A machine is sans-I/O: messages in, events out, no clock of its own. One table holds its transitions. It raises
`vault.errors.Invalid` for a message that its state does not permit, and is not used any more after that. A message that
cannot be read while audio comes is `LeftOut`, unless there is no end of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol

from vault.model import CallFacts, Media
from vault.protocol.live.bad_frames import LeftOut


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The recorder has said which call this is and what its audio is; comes before all other events but `Say`.

    `call_key` is None when the dialect names no call. `token` is a credential inside the first message, where the
    dialect's clients can send no header.
    """

    call_key: str | None = field(repr=False)
    media: Media
    facts: CallFacts = field(default_factory=CallFacts, repr=False)
    started_at: datetime | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Audio:
    """Bytes to keep as they are, in the media announced; never empty, and at most 1 MiB."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Here `missing_ms` milliseconds of the call are not in the audio, nor filled in."""

    missing_ms: int


@dataclass(frozen=True, slots=True)
class Paused:
    """What follows must not be kept, until `Resumed` or until the pause has lasted too long."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What follows is kept again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dtmf:
    """A key was pressed: dropped unless the tenant keeps them."""

    digit: str = field(repr=False)
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """More is known about the call than when it started; set fields replace, tags and extras are added."""

    facts: CallFacts = field(repr=False)


@dataclass(frozen=True, slots=True)
class Say:
    """A message to send to the recorder now."""

    payload: str | bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The recorder is done; `clean` false leaves the recording open for its grace period, then truncated."""

    clean: bool
    reason: str


Event = Started | Audio | Gap | Paused | Resumed | Dtmf | Facts | LeftOut | Say | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What is known of a connection before its first message: the offered subprotocols and the address's query."""

    subprotocols: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict, repr=False)


class Dialect(Protocol):
    """One connection's machine. Bounded memory: a message that would make it grow without end raises Invalid."""

    name: ClassVar[str]
    """The `dialect` label of `callvault_ingest_bytes_total`."""

    def receive(self, message: str | bytes) -> Sequence[Event]:
        """Take one whole message; Invalid for what this state does not permit."""

    def waiting(self) -> int:
        """Return how many of the next bytes of audio stand for a time of which some has come in already."""

    def idle(self) -> Sequence[Event]:
        """Nothing has come for the idle time: give out what a reorder window still holds, or the end."""

    def closed(self, code: int | None) -> Sequence[Event]:
        """The connection is gone (None: without a close): the last audio, then `Ended` unless that was told already."""

    def kept(self) -> Sequence[Say]:
        """The end is durable: what the recorder is told before the connection is closed."""
