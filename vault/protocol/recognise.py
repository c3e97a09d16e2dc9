"""Which WebSocket dialect a connection speaks, from its handshake and its first message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vault.errors import Invalid
from vault.protocol import mediastreams
from vault.protocol.events import Dialect, Handshake

Recogniser = Callable[[Handshake, str | bytes], Dialect | None]
"""Return a fresh machine if the first message is this dialect's, else None; the message is not yet fed to it."""

_RECOGNISERS: Final[tuple[Recogniser, ...]] = (mediastreams.recognised,)


def recognise(handshake: Handshake, first: str | bytes) -> Dialect:
    """Return a fresh machine for the dialect of the first message, most specific first; Invalid if none speaks it."""
    for recogniser in _RECOGNISERS:
        if (machine := recogniser(handshake, first)) is not None:
            return machine
    raise Invalid(
        "the first message tells no dialect that the vault speaks",
        hint="callvault recorders prints the configuration of every recorder that works",
    )
