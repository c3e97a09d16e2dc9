"""Vonage Voice API: a call's mixed audio over WebSocket, as the NCCO action `connect` sends it.

After developer.vonage.com, "WebSockets in the Vonage Voice API": the first text is `websocket:connected` with the
content type and the NCCO's `headers` (at most 512 bytes), at the top level. Then come 16-bit little-endian samples,
mono, 20 ms a message. Vonage sends no credential, so a header `token` may be one. Audio sent back would be played into
the call, so nothing is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Final

from vault.errors import UnsupportedMedia
from vault.media.descriptor import parse_content_type
from vault.model import Codec
from vault.protocol.facts.json_text import Members
from vault.protocol.facts.metadata import address_facts, call_facts, call_key, dtmf, parse_object
from vault.protocol.live.binary import TEXT_FIRST, BinaryDialect, Transitions
from vault.protocol.live.events import Broken, Event, Handshake, Started

_CONNECTED: Final = "websocket:connected"
_DTMF: Final = "websocket:dtmf"
_KEYS: Final = ("call_key", "call_uuid", "uuid", "conversation_uuid")
_KNOWN: Final = frozenset({"event", "content-type"})


class Vonage(BinaryDialect):
    """One leg of a call."""

    name: ClassVar[str] = "vonage"
    transitions: ClassVar[Transitions] = TEXT_FIRST

    def started(self, first: str | bytes) -> Started:
        """Read `websocket:connected`; UnsupportedMedia unless the content type is audio/l16."""
        document, query = parse_object(first) or Members(), self._handshake.query
        declared, token = document.get("content-type"), document.get("token")
        media = parse_content_type(declared) if isinstance(declared, str) and declared else None
        if media is None or media.codec not in {Codec.S16BE, Codec.S16LE}:
            raise UnsupportedMedia(
                "the content-type is not one that Vonage sends: ask for audio/l16;rate=16000 in the NCCO"
            )
        return Started(
            call_key=call_key(document, _KEYS),
            # audio/l16 is big endian elsewhere (RFC 2586); Vonage sends little endian under that name.
            media=replace(media, codec=Codec.S16LE),
            facts=call_facts({**address_facts(query), **document}, known=_KNOWN, read=(document, query)),
            token=token if isinstance(token, str) and token else None,
        )

    def read_text(self, text: str) -> Sequence[Event]:
        """Read `websocket:dtmf`, whose duration is in milliseconds; other events are ignored.

        A text that is not JSON is left out.
        """
        event = parse_object(text)
        if event is None:
            return self.breakage.left_out(Broken.FORM)
        return dtmf(event.get("digit"), event.get("duration")) if event.get("event") == _DTMF else ()


def recognise_vonage(handshake: Handshake, first: str | bytes) -> Vonage | None:
    """Return a new machine if the first message is `websocket:connected`, else None."""
    return Vonage(handshake) if (parse_object(first) or Members()).get("event") == _CONNECTED else None
