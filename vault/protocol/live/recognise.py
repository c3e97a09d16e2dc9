"""Recognises the WebSocket protocol of a connection by its handshake and its first message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vault.errors import Invalid
from vault.protocol.facts.metadata import UNREADABLE, unreadable
from vault.protocol.live.audiohook import AudioHook
from vault.protocol.live.binary import (
    Vonage,
    recognise_asterisk,
    recognise_audio_fork,
    recognise_audio_stream,
    recognise_vonage,
)
from vault.protocol.live.events import Dialect, Handshake
from vault.protocol.live.media_streams import Telnyx, Twilio, recognise_media_stream
from vault.protocol.live.streams import AudioSocket

Recogniser = Callable[[Handshake, str | bytes], Dialect | None]
"""Returns a new machine if the first message is of its protocol, else None. The machine has not received it yet."""

IN_FRAMES: Final = (Twilio.name, Telnyx.name, Vonage.name, AudioHook.name, AudioSocket.name)
"""The live protocols whose broken frames can be recognised."""

_RECOGNISERS: Final[tuple[Recogniser, ...]] = (
    recognise_media_stream,
    recognise_asterisk,
    recognise_vonage,
    recognise_audio_stream,
    recognise_audio_fork,
)


def recognise(handshake: Handshake, first: str | bytes) -> Dialect:
    """Return a new machine for the protocol of the first message; Invalid if it is of none.

    The more specific protocols are tried first. The machine has not received the message yet.
    """
    for recogniser in _RECOGNISERS:
        if (machine := recogniser(handshake, first)) is not None:
            return machine
    if unreadable(first):
        raise Invalid(UNREADABLE)
    raise Invalid(
        "the first message is of no known protocol: send metadata, or put ?call_key=…&rate=8000&channels=1 in the URL",
        hint="callvault recorders prints the configurations of recorders",
    )
