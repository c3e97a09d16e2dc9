"""Genesys AudioHook, protocol version 2: numbered JSON messages, and audio between them.

Facts from the protocol reference (developer.genesys.cloud/devapps/audiohook) and its reference implementation
(purecloudlabs/audiohook-reference-implementation, app/audiohook/src/protocol and src/server).
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from vault.errors import Invalid, Unauthenticated, Unavailable
from vault.media.tracks import LONGEST_MS
from vault.model import CallFacts, Codec, Container, Media
from vault.protocol.facts.stated import Reading, cut
from vault.protocol.live.events import Audio, Breakage, Broken, Dtmf, Ended, Event, Gap, Paused, Resumed, Say, Started

# -- the signature of the upgrade (RFC 9421) ------------------------------------------------------------------------
# HTTP message signatures (RFC 9421) as AudioHook clients make them: an HMAC-SHA256 over fields of a request.
#
# Of RFC 9421: sections 2.1, 2.2.3, 2.2.5, 2.3, 2.5, 3.3.3 and 4, without component parameters and with one signature.

MAX_AGE_SECONDS: Final = 30
"""How old a signature may be; those of AudioHook expire after that time."""
SKEW_SECONDS: Final = 5
"""How far the two clocks may differ."""
MIN_NONCE: Final = 22
"""The least length of a nonce in characters: 128 bits in base64."""

_MAX_FIELD: Final = 4_096
_MAX_NONCES: Final = 100_000
_STRING: Final = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'  # RFC 8941 section 3.3.3
_KEY: Final = r"[a-z*][a-z0-9_\-.*]*"
_LIST: Final = rf"\((?:{_STRING}(?: {_STRING})*)?\)"
_PARAMETERS: Final = rf"(?:;{_KEY}=(?:{_STRING}|[0-9]{{1,15}}))*"
_INPUT: Final = re.compile(rf"({_KEY})=(({_LIST})({_PARAMETERS}))", re.ASCII)
_SIGNATURE: Final = re.compile(rf"({_KEY})=:([A-Za-z0-9+/]{{43}}=):", re.ASCII)
_EACH_STRING: Final = re.compile(_STRING, re.ASCII)
_EACH_PARAMETER: Final = re.compile(rf";({_KEY})=(?:({_STRING})|([0-9]{{1,15}}))", re.ASCII)
_NAMES: Final = frozenset({"created", "expires"})
_WORDS: Final = frozenset({"keyid", "nonce", "alg"})
_ALGORITHM: Final = "hmac-sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature as it was sent, not yet verified."""

    components: tuple[str, ...]
    created: int
    expires: int | None
    keyid: str = field(repr=False)
    nonce: str = field(repr=False)
    parameters: str = field(repr=False)
    """The value of `@signature-params` as it was sent."""
    value: bytes = field(repr=False)


def parse_signature(signature_input: str, signature: str) -> Signature:
    """Parse the two header fields; Unauthenticated if they are malformed, ambiguous or of another algorithm."""
    given = _INPUT.fullmatch(signature_input.strip()) if len(signature_input) <= _MAX_FIELD else None
    proof = _SIGNATURE.fullmatch(signature.strip()) if len(signature) <= _MAX_FIELD else None
    if given is None or proof is None or given[1] != proof[1]:
        raise _refused()
    components = tuple(_unquoted(each) for each in _EACH_STRING.findall(given[3]))
    words: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for name, word, number in _EACH_PARAMETER.findall(given[4]):
        if name in words or name in numbers or name not in (_WORDS if word else _NAMES):
            raise _refused()
        if word:
            words[name] = _unquoted(word)
        else:
            numbers[name] = int(number)
    if words.get("alg", _ALGORITHM) != _ALGORITHM or not {"keyid", "nonce"} <= words.keys() or "created" not in numbers:
        raise _refused()
    try:
        value = base64.b64decode(proof[2], validate=True)
    except binascii.Error as error:
        raise _refused() from error
    return Signature(
        components=components,
        created=numbers["created"],
        expires=numbers.get("expires"),
        keyid=words["keyid"],
        nonce=words["nonce"],
        parameters=given[2],
        value=value,
    )


def signature_base(signature: Signature, values: Mapping[str, str]) -> bytes:
    """Return the bytes that are signed (RFC 9421 section 2.5); Unauthenticated if the request lacks a component."""
    lines = []
    for name in signature.components:
        if name not in values:
            raise _refused()
        lines.append(f'"{name}": {values[name].strip()}')
    lines.append(f'"@signature-params": {signature.parameters}')
    return "\n".join(lines).encode("latin-1", errors="replace")


def verify(
    signature: Signature, *, key: bytes, values: Mapping[str, str], required: frozenset[str], now: float
) -> None:
    """Raise Unauthenticated unless `key` made the signature, it covers the `required` components, and it is recent.

    `values` are the request's components by their lower-case names; `now` is in Unix seconds. `Nonces` checks that the
    nonce is new.
    """
    made = hmac.new(key, signature_base(signature, values), hashlib.sha256).digest()
    if not hmac.compare_digest(made, signature.value):
        raise _refused()
    if len(set(signature.components)) != len(signature.components) or not required <= set(signature.components):
        raise _refused()
    if not now - MAX_AGE_SECONDS - SKEW_SECONDS <= signature.created <= now + SKEW_SECONDS:
        raise _refused()
    if signature.expires is not None and signature.expires < now - SKEW_SECONDS:
        raise _refused()
    if len(signature.nonce) < MIN_NONCE:
        raise _refused()


class Nonces:
    """The used nonces whose signatures are still valid, so that a signature opens only one connection."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}

    def spend(self, signature: Signature, *, now: float) -> None:
        """Mark the nonce of a verified signature as used; Unauthenticated if it was, Unavailable if there are too many.

        `now` is in Unix seconds.
        """
        # The dictionary is in order of arrival, so the oldest come first.
        while self._seen and self._seen[oldest := next(iter(self._seen))] <= now:
            del self._seen[oldest]
        if len(self._seen) >= _MAX_NONCES:
            raise Unavailable("too many signed connections arrive at once", retry_after_seconds=5)
        place = (signature.keyid, signature.nonce)
        if place in self._seen:
            raise _refused()
        self._seen[place] = now + MAX_AGE_SECONDS + 2 * SKEW_SECONDS


def _unquoted(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", text[1:-1])


def _refused() -> Unauthenticated:
    """Return the same error for all causes, so that an attacker learns nothing."""
    return Unauthenticated(
        "the signature or the token is unknown, wrong, too old or was used before",
        hint="X-API-KEY is the recorder token's id, and the client secret its secret in base64; check both clocks",
    )


# -- the machine of a session ---------------------------------------------------------------------------------------

_PAUSED: Final = '"paused"'
_RATE: Final = 8_000
_MAX_TEXT: Final = 65_535
_MAX_OFFERS: Final = 32
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_DURATION: Final = re.compile(r"PT([0-9]{0,15}(?:\.[0-9]{1,15})?)S", re.ASCII)
_PROBE: Final = "00000000-0000-0000-0000-000000000000"
_CODECS: Final = {"PCMU": Codec.PCMU, "L16": Codec.S16LE}
"""L16 is little endian: the reference implementation reads it in the machine's byte order (src/audio/audioframe.ts)."""
_SIDES: Final = {"external": "caller", "internal": "callee"}
_REASONS: Final = ("end", "error", "disconnect", "reconnect")
_KNOWN: Final = ("open", "close", "ping", "update", "error", "paused", "resumed", "discarded", "dtmf")
_WANTED: Final = (
    ("PCMU", ["external", "internal"]),
    ("PCMU", ["internal", "external"]),
    ("L16", ["external", "internal"]),
    ("L16", ["internal", "external"]),
    ("PCMU", ["external"]),
    ("PCMU", ["internal"]),
    ("L16", ["external"]),
    ("L16", ["internal"]),
)
"""Media in order of preference: both sides before one, PCMU before L16."""


class _State(enum.Enum):
    PREPARING = enum.auto()
    PROBED = enum.auto()
    """A test of the connection: messages are answered and nothing is kept."""
    ACTIVE = enum.auto()
    PAUSED = enum.auto()
    CLOSED = enum.auto()


_OPEN: Final = (_State.PROBED, _State.ACTIVE, _State.PAUSED)
_RECORDING: Final = (_State.ACTIVE, _State.PAUSED)
_MOST_SEQ: Final = 1 << 53


class AudioHook:
    """The server's side of one session. `session` and `organization` come from the request's headers."""

    name: ClassVar[str] = "audiohook"

    def __init__(self, *, session: str, organization: str) -> None:
        if not _UUID.fullmatch(session.lower()) or not _UUID.fullmatch(organization.lower()):
            raise Invalid("Audiohook-Session-Id or Audiohook-Organization-Id is not a UUID")
        self._session = session
        self._organization = organization.lower()
        self._state = _State.PREPARING
        self._heard = 0
        """The client's last sequence number."""
        self._said = 0
        """The server's last sequence number."""
        self._breakage = Breakage()

    def receive(self, message: str | bytes) -> Sequence[Event]:
        """Receive one whole message; Invalid if the state does not permit it.

        During a recording, an unreadable or repeated message is left out, and one with a skipped number is accepted.
        """
        if isinstance(message, bytes):
            return self._audio(message)
        heard = self._heard
        try:
            kind, parameters = self._envelope(message)
        except Invalid:
            if self._state not in _RECORDING:
                raise
            return self._unreadable(message)
        if self._heard == heard:
            return self._breakage.left_out(Broken.ORDER)
        step = self._STEPS.get((self._state, kind))
        if step is not None:
            return step(self, parameters)
        if self._state in _OPEN and kind not in _KNOWN:
            return ()  # a message of a later revision is no reason to lose a call
        raise Invalid("an AudioHook message came that this point of the session does not permit")

    def waiting(self) -> int:
        """Return 0: nothing is held back."""
        return 0

    def idle(self) -> Sequence[Event]:
        """Return nothing: nothing is held back."""
        return ()

    def closed(self, code: int | None) -> Sequence[Event]:  # noqa: ARG002  # a session ends with `close`, never with a code
        """End a session whose connection ended without `close`; it may lack audio."""
        if self._state not in {_State.ACTIVE, _State.PAUSED}:
            return ()
        self._state = _State.CLOSED
        return (Ended(clean=False, reason="connection_lost"),)

    def closing_messages(self) -> Sequence[Say]:
        """Return `closed`, which is sent only when the recording is durable."""
        return (self._say("closed", {}),)

    def refused(self, reason: str, info: str, *, begun: bool) -> Sequence[Say]:
        """Return a request to end the session; `reason` is completed, unauthorized or error.

        Unless the recording has `begun`, the message `opened` was not sent, and its number is used again.
        """
        if self._state is _State.CLOSED:
            return ()
        if self._state is _State.ACTIVE and not begun:
            self._said -= 1
        self._state = _State.CLOSED
        return (self._say("disconnect", {"reason": reason, "info": info}),)

    # -- envelope -----------------------------------------------------------------------------------------------

    def _envelope(self, text: str) -> tuple[str, Mapping[str, Any]]:
        """Return type and parameters of a client message; Invalid if it is malformed.

        Before the recording it is also Invalid unless its number is the next. During the recording a message with the
        last number is a repetition: then `_heard` does not change. Other numbers are accepted, because TCP keeps order.
        """
        if len(text) > _MAX_TEXT:
            raise Invalid("an AudioHook message is longer than 64 KiB")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Invalid("an AudioHook message is not JSON") from error
        match document:
            case {
                "version": "2",
                "id": self._session,
                "type": str(kind),
                "seq": int(seq),
                "parameters": dict(parameters),
            } if type(seq) is int and 0 < seq < _MOST_SEQ:
                pass
            case _:
                raise Invalid("an AudioHook message is not of version 2, or is of another session")
        if self._state not in _RECORDING:
            self._require_next(seq, document)
        self._heard = seq
        return kind, parameters

    def _require_next(self, seq: int, document: Mapping[str, Any]) -> None:
        serverseq = document.get("serverseq")
        _seconds(document.get("position"))
        if seq != self._heard + 1 or type(serverseq) is not int or not 0 <= serverseq <= self._said:
            raise Invalid("an AudioHook message is out of sequence")

    def _unreadable(self, text: str) -> Sequence[Event]:
        """Leave a message out. If it may be a pause, pause: audio recorded in a pause could not be taken back."""
        left_out = self._breakage.left_out(Broken.FORM)
        if _PAUSED in text and self._state is _State.ACTIVE:
            self._state = _State.PAUSED
            return (*left_out, Paused())
        return left_out

    def _say(self, kind: str, parameters: Mapping[str, Any]) -> Say:
        self._said += 1
        message = {
            "version": "2",
            "type": kind,
            "id": self._session,
            "seq": self._said,
            "clientseq": self._heard,
            "parameters": parameters,
        }
        return Say(json.dumps(message))

    # -- steps, named in the table below ------------------------------------------------------------------------

    def _audio(self, data: bytes) -> Sequence[Event]:
        if self._state not in _OPEN:
            raise Invalid("audio came before the session was open, or after it was closed")
        self._breakage.sound += 1
        # The recording drops audio sent in a pause: only it knows whether the pause still lasts.
        return (Audio(data),) if data and self._state is not _State.PROBED else ()

    def _open(self, parameters: Mapping[str, Any]) -> Sequence[Event]:
        conversation = parameters.get("conversationId")
        participant = parameters.get("participant")
        if not isinstance(conversation, str) or not _UUID.fullmatch(conversation.lower()):
            raise Invalid("the session opens without a conversation")
        if not isinstance(participant, dict) or str(parameters.get("organizationId")).lower() != self._organization:
            raise Invalid("the session opens for another organization than the request, or without a participant")
        offer, media = _chosen(parameters.get("media"))
        opened: dict[str, Any] = {"media": [] if offer is None else [offer], "startPaused": False}
        if parameters.get("supportedLanguages") is True:
            opened["supportedLanguages"] = []
        if conversation == _PROBE:
            self._state = _State.PROBED
            return (self._say("opened", opened),)
        if media is None:
            raise Invalid("the session offers no audio that the vault keeps", hint="PCMU or L16, 8000 Hz")
        self._state = _State.ACTIVE
        started = Started(
            call_key=_key(conversation, participant),
            media=media,
            facts=self._facts(conversation, participant, parameters.get("customConfig")),
        )
        return (started, self._say("opened", opened))

    def _facts(self, conversation: str, participant: Mapping[str, Any], custom: object) -> CallFacts:
        extra = {
            "conversation_id": conversation.lower(),
            "participant_id": _text(participant.get("id")),
            "organization_id": self._organization,
            "session_id": self._session,
            "caller_name": _text(participant.get("aniName")),
        }
        # Only known members of customConfig: integrations put credentials into it.
        chosen = custom if isinstance(custom, dict) else {}
        direction, tags = chosen.get("direction"), chosen.get("tags")
        reading = Reading()
        return CallFacts(
            caller=_number(participant.get("ani")),
            called=_number(participant.get("dnis")),
            direction=reading.direction("direction", direction if isinstance(direction, str) else None),
            tags=reading.tags("tags", [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else ()),
            extra={name: value for name, value in extra.items() if value},
            unusable=reading.unusable,
        )

    def _ping(self, _: Mapping[str, Any]) -> Sequence[Event]:
        return (self._say("pong", {}),)

    def _update(self, _: Mapping[str, Any]) -> Sequence[Event]:
        return (self._say("updated", {}),)

    def _discarded(self, parameters: Mapping[str, Any]) -> Sequence[Event]:
        try:
            missing = round(_seconds(parameters.get("discarded")) * 1000)
        except Invalid:
            return self._breakage.left_out(Broken.MEMBER)
        return (Gap(missing_ms=missing),) if missing else ()

    def _paused(self, _: Mapping[str, Any]) -> Sequence[Event]:
        self._state = _State.PAUSED
        return (Paused(),)

    def _resumed(self, _: Mapping[str, Any]) -> Sequence[Event]:
        self._state = _State.ACTIVE
        return (Resumed(),)

    def _dtmf(self, parameters: Mapping[str, Any]) -> Sequence[Event]:
        digit = parameters.get("digit")
        return (Dtmf(digit=digit),) if isinstance(digit, str) and re.fullmatch(r"[0-9A-D*#]", digit) else ()

    def _nothing(self, _: Mapping[str, Any]) -> Sequence[Event]:
        return ()

    def _close(self, parameters: Mapping[str, Any]) -> Sequence[Event]:
        """End the session; with a reason other than `end` the call may continue unrecorded."""
        self._state = _State.CLOSED
        reason = parameters.get("reason")
        return (Ended(clean=reason == "end", reason=reason if reason in _REASONS else "error"),)

    def _close_unopened(self, _: Mapping[str, Any]) -> Sequence[Event]:
        self._state = _State.CLOSED
        return (self._say("closed", {}), Ended(clean=True, reason="nothing_recorded"))

    _STEPS: ClassVar[Mapping[tuple[_State, str], Callable[[Any, Mapping[str, Any]], Sequence[Event]]]] = {
        (_State.PREPARING, "open"): _open,
        (_State.PREPARING, "ping"): _ping,
        (_State.PREPARING, "error"): _nothing,
        (_State.PREPARING, "close"): _close_unopened,
        (_State.PROBED, "ping"): _ping,
        (_State.PROBED, "update"): _update,
        (_State.PROBED, "error"): _nothing,
        (_State.PROBED, "discarded"): _nothing,
        (_State.PROBED, "paused"): _nothing,
        (_State.PROBED, "resumed"): _nothing,
        (_State.PROBED, "dtmf"): _nothing,
        (_State.PROBED, "close"): _close_unopened,
        (_State.ACTIVE, "ping"): _ping,
        (_State.ACTIVE, "update"): _update,
        (_State.ACTIVE, "error"): _nothing,
        (_State.ACTIVE, "discarded"): _discarded,
        (_State.ACTIVE, "paused"): _paused,
        (_State.ACTIVE, "resumed"): _nothing,
        (_State.ACTIVE, "dtmf"): _dtmf,
        (_State.ACTIVE, "close"): _close,
        (_State.PAUSED, "ping"): _ping,
        (_State.PAUSED, "update"): _update,
        (_State.PAUSED, "error"): _nothing,
        (_State.PAUSED, "discarded"): _discarded,
        (_State.PAUSED, "paused"): _paused,
        (_State.PAUSED, "resumed"): _resumed,
        (_State.PAUSED, "dtmf"): _dtmf,
        (_State.PAUSED, "close"): _close,
    }


def _chosen(offered: object) -> tuple[Mapping[str, Any] | None, Media | None]:
    """Return the offer to accept, as it was offered, and its media; None without one."""
    offers = [each for each in offered[:_MAX_OFFERS] if isinstance(each, dict)] if isinstance(offered, list) else []
    for form, channels in _WANTED:
        for offer in offers:
            wanted = {"type": "audio", "format": form, "channels": channels, "rate": _RATE}
            if all(offer.get(name) == value for name, value in wanted.items()):
                sides = tuple(_SIDES[each] for each in channels)
                return wanted, Media(
                    container=Container.RAW,
                    codec=_CODECS[form],
                    rate=_RATE,
                    channels=len(channels),
                    channel_map=sides,
                )
    return None, None


def _key(conversation: str, participant: Mapping[str, Any]) -> str:
    """Return a call key of conversation and participant: a conversation has a session for each participant."""
    identifier = participant.get("id")
    if not isinstance(identifier, str) or not _UUID.fullmatch(identifier.lower()):
        raise Invalid("the session's participant has no id")
    return f"{conversation.lower()}:{identifier.lower()}"


def _seconds(value: object) -> float:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or not match[1]:
        raise Invalid("an AudioHook duration is not of the form PT1.5S")
    seconds = float(match[1])
    if seconds * 1_000 > LONGEST_MS:
        raise Invalid("an AudioHook duration is longer than a week")
    return seconds


def _text(value: object) -> str:
    """Return a text cut to what a fact may be; empty for other values."""
    return cut(value) if isinstance(value, str) else ""


def _number(value: object) -> str | None:
    return _text(value).strip() or None
