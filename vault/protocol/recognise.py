"""Which WebSocket dialect a connection speaks, from its handshake and its first message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vault.errors import Invalid
from vault.protocol.asterisk import recognise_asterisk
from vault.protocol.audiohook import AudioHook
from vault.protocol.audiosocket import AudioSocket
from vault.protocol.events import Dialect, Handshake
from vault.protocol.jambonz import recognise_audio_fork, recognise_audio_stream
from vault.protocol.mediastreams import Telnyx, Twilio, recognise_media_stream
from vault.protocol.vonage import Vonage, recognise_vonage

Recogniser = Callable[[Handshake, str | bytes], Dialect | None]
"""Return a fresh machine if the first message is this dialect's, else None; the message is not yet fed to it."""

IN_FRAMES: Final = (Twilio.name, Telnyx.name, Vonage.name, AudioHook.name, AudioSocket.name)
"""The live dialects whose frames can be told from broken ones, whatever carries them."""

_RECOGNISERS: Final[tuple[Recogniser, ...]] = (
    recognise_media_stream,
    recognise_asterisk,
    recognise_vonage,
    recognise_audio_stream,
    recognise_audio_fork,
)


def recognise(handshake: Handshake, first: str | bytes) -> Dialect:
    """Return a fresh machine for the dialect of the first message, most specific first; Invalid if none speaks it."""
    for recogniser in _RECOGNISERS:
        if (machine := recogniser(handshake, first)) is not None:
            return machine
    raise Invalid(
        "the first message tells no dialect: send metadata, or put ?call_key=…&rate=8000&channels=1 in the address",
        hint="callvault recorders prints the configuration of every recorder that works",
    )
