"""Asterisk's WebSocket channel driver, with control messages in plain text and in JSON.

After `channels/chan_websocket.c` of Asterisk 20.16, 21.11, 22.6 and 23.0, and docs.asterisk.org, "WebSocket". Media has
the channel's codec, mono, one frame a message. Signed linear is in the host's byte order, taken to be little endian. A
hangup is a close with 1000. Nothing is sent back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from vault.errors import UnsupportedMedia
from vault.media.descriptor import TELEPHONE_RATE, raw_media
from vault.model import Codec
from vault.protocol.facts.json_text import Members, first_of_each
from vault.protocol.facts.metadata import MAX_TEXT, address_facts, call_facts, call_key, dtmf, parse_object
from vault.protocol.live.binary import TEXT_FIRST, BinaryDialect, Transitions
from vault.protocol.live.events import Event, Handshake, Started

_START: Final = "MEDIA_START"
_FORMATS: Final[Mapping[str, tuple[Codec, int]]] = {
    "ulaw": (Codec.PCMU, TELEPHONE_RATE),
    "alaw": (Codec.PCMA, TELEPHONE_RATE),
    "slin": (Codec.S16LE, TELEPHONE_RATE),
    **{
        f"slin{rate // 1000}": (Codec.S16LE, rate)
        for rate in (12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000)
    },
}
_KNOWN: Final = frozenset({"event", "format", "optimal_frame_size", "ptime"})


class Asterisk(BinaryDialect):
    """One channel. The call key is the channel's unique id; the connection's id names a configuration, not a call."""

    name: ClassVar[str] = "asterisk"
    transitions: ClassVar[Transitions] = TEXT_FIRST

    def started(self, first: str | bytes) -> Started:
        """Read MEDIA_START; UnsupportedMedia unless the format is G.711 or signed linear."""
        document, query = _control(first), self._handshake.query
        codec = _FORMATS.get(str(document.get("format")))
        if codec is None:
            raise UnsupportedMedia(
                "this format cannot be kept as it is: dial with c(ulaw), c(alaw), c(slin) or c(slin16)"
            )
        return Started(
            call_key=call_key(document, ("channel_id",)),
            media=raw_media(codec[0], rate=codec[1], channels=1),
            facts=call_facts({**address_facts(query), **document}, known=_KNOWN, read=(document, query)),
        )

    def read_text(self, text: str) -> Sequence[Event]:
        """Read DTMF_END; other events are ignored."""
        event = _control(text)
        return dtmf(event.get("digit")) if event.get("event") == "DTMF_END" else ()


def _control(message: str | bytes) -> Mapping[str, Any]:
    """Return the members of a control message, `EVENT name:value …` or a JSON object, with its `event`."""
    if not isinstance(message, str) or len(message) > MAX_TEXT:
        return {}
    if message.startswith("{"):
        return parse_object(message) or Members()
    event, *words = message.split()[:16] or [""]
    members = ((name, value) for name, colon, value in (word.partition(":") for word in words) if colon)
    return first_of_each([("event", event), *members])


def recognise_asterisk(handshake: Handshake, first: str | bytes) -> Asterisk | None:
    """Return a new machine if the first message is MEDIA_START, in text or JSON; else None."""
    return Asterisk(handshake) if _control(first).get("event") == _START else None
