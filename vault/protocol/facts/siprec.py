"""Reads the metadata of a recorded SIP session (RFC 7865): the participants, their addresses and their streams.

Senders differ, so the reader is tolerant. The namespace may be `urn:ietf:params:xml:ns:recording` with or without `:1`,
or missing; prefixes may be unbound; identifiers are `id` or `participant_id`. Streams are named in
`participantstreamassoc` or, in the drafts before RFC 7865 that Acme Packet and AudioCodes send, within the participant.
A document type, an entity, too many elements or too deep a tree is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol
from xml.parsers import expat  # defused here: no document type is admitted

from vault.errors import Invalid
from vault.model import CallFacts
from vault.protocol.facts.stated import cut

# -- XML without document types and entities ------------------------------------------------------------------------


class Walker(Protocol):
    """Receives elements and texts in document order. It bounds what it keeps, and raises to stop."""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """Receive the beginning of an element."""

    def text(self, data: str) -> None:
        """Receive text of the innermost open element."""

    def end(self, name: str) -> None:
        """Receive the end of an element."""


class Defused(ValueError):
    """The document has a document type or declares an entity."""


def walk(document: bytes, walker: Walker) -> None:
    """Pass the content of a document to `walker`.

    Defused for a document type or an entity. ValueError if it is not well-formed or its encoding is unknown.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    parser.StartElementHandler = walker.start
    parser.CharacterDataHandler = walker.text
    parser.EndElementHandler = walker.end
    try:
        parser.Parse(document, True)  # the parser's own signature
    except (expat.ExpatError, LookupError) as error:
        raise ValueError from error


def _refuse(*_: object) -> None:
    raise Defused


# -- the metadata of a recording session ----------------------------------------------------------------------------

MAX_BYTES: Final = 256 << 10
_MOST_ELEMENTS: Final = 4_000
_MOST_DEPTH: Final = 24
_MOST_PARTICIPANTS: Final = 16
_MOST_STREAMS: Final = 32
_MOST_TEXT: Final = 200
XML_TYPES: Final = frozenset({"application/rs-metadata+xml", "application/rs-metadata", "application/xml", "text/xml"})
"""Some senders of the drafts use `application/rs-metadata`."""
_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE | re.ASCII)
_PART_TYPE: Final = re.compile(rb"^content-type:[ \t]*([^\s;]{1,100})", re.IGNORECASE | re.MULTILINE)
_BLANK_LINE: Final = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """A participant of the call; `labels` are the SDP labels of the streams that it sends."""

    id: str
    aor: str = field(default="", repr=False)
    name: str = field(default="", repr=False)
    labels: tuple[str, ...] = ()
    associated: str = ""
    disassociated: str = ""
    calling: bool | None = None
    """Whether the sender states that this participant called; None if it does not state it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """The content of one document."""

    session: str = ""
    sip_session: str = ""
    started: str = ""
    participants: tuple[Participant, ...] = ()


def part_of(content_type: str, body: bytes) -> bytes:
    """Return the XML of a body of this type: the body, or the first XML part of a multipart body.

    Invalid if there is none.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in XML_TYPES:
        return body
    boundary = _BOUNDARY.search(content_type) if kind.startswith("multipart/") else None
    if boundary is None:
        raise Invalid(
            "this is not SIPREC metadata", hint="send application/rs-metadata+xml, or multipart/mixed with it"
        )
    mark = b"--" + (boundary[1] or boundary[2]).encode(errors="replace")
    for part in body.split(mark)[1:]:
        blank = _BLANK_LINE.search(part)
        head = part[: blank.start()] if blank else b""
        named = _PART_TYPE.search(head)
        if blank and named and named[1].decode("ascii", "replace").lower() in XML_TYPES:
            return part[blank.end() :]
    raise Invalid("no part of the body is SIPREC metadata")


def parse(document: bytes) -> Metadata:
    """Return the content of a document; Invalid if it cannot be read. The message quotes nothing of it."""
    if len(document) > MAX_BYTES:
        raise Invalid("the metadata is longer than 256 KiB")
    reader = _Reader()
    try:
        walk(document.lstrip(), reader)
    except Defused as error:
        raise Invalid("the metadata declares a document type or entities; nothing of it was read") from error
    except ValueError as error:
        raise Invalid("the metadata is not well-formed XML") from error
    if not reader.is_recording:
        raise Invalid("the XML is not recording metadata")
    return reader.metadata()


def facts(metadata: Metadata) -> CallFacts:
    """Return the facts of a call.

    The caller is the participant that is stated to call, else the first. The called party is the next participant.
    """
    caller, called = _sides(metadata)
    extra = {
        "siprec_session": metadata.session,
        "siprec_sip_session": metadata.sip_session,
        "siprec_started": metadata.started,
        "siprec_participants": json.dumps([_shown(each) for each in metadata.participants], ensure_ascii=False)
        if metadata.participants
        else "",
    }
    return CallFacts(
        caller=_address(caller), called=_address(called), extra={name: text for name, text in extra.items() if text}
    )


def _sides(metadata: Metadata) -> tuple[Participant | None, Participant | None]:
    present = [each for each in metadata.participants if each.aor] or list(metadata.participants)
    caller = next((each for each in present if each.calling), None)
    if caller is None:
        # A participant that is stated not to call is the called party.
        caller = next((each for each in present if each.calling is None), None)
    return caller, next((each for each in present if each is not caller), None)


def _address(participant: Participant | None) -> str | None:
    return cut(participant.aor).strip() or None if participant is not None else None


def _shown(participant: Participant) -> dict[str, str | list[str]]:
    shown: dict[str, str | list[str]] = {
        "id": participant.id,
        "aor": participant.aor,
        "name": participant.name,
        "labels": list(participant.labels),
        "associated": participant.associated,
        "disassociated": participant.disassociated,
    }
    return {name: value for name, value in shown.items() if value}


class _Reader:
    """Collects participants, streams and session ids, each up to a bound."""

    def __init__(self) -> None:
        self.is_recording = False
        self._path: list[tuple[str, Mapping[str, str]]] = []
        self._elements = 0
        self._text: list[str] = []
        self._length = 0
        self._head: dict[str, str] = {}
        self._participants: dict[str, Participant] = {}
        self._labels: dict[str, str] = {}
        self._sends: dict[str, list[str]] = {}

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        if self._elements > _MOST_ELEMENTS or len(self._path) >= _MOST_DEPTH:
            raise Invalid("the metadata has too many elements, or nests too deeply")
        local = _local(name)
        self.is_recording = self.is_recording or local == "recording"
        plain = {_local(key): value[:_MOST_TEXT] for key, value in attributes.items()}
        self._path.append((local, plain))
        self._text, self._length = [], 0
        match local:
            case "session":
                self._head.setdefault("session", plain.get("session_id") or plain.get("id") or plain.get("session", ""))
            case "participant":
                self._set(_id(plain, "participant"), name=plain.get("name", ""), aor=plain.get("aor", ""))
            case "nameid":
                self._set(self._owner(), aor=plain.get("aor", ""))
            case "stream" if label := plain.get("label"):
                self._label(plain, label)

    def text(self, data: str) -> None:
        if self._length < _MOST_TEXT:
            self._text.append(data[: _MOST_TEXT - self._length])
            self._length += len(data)

    def end(self, _: str) -> None:
        local, _attributes = self._path.pop()
        text = "".join(self._text).strip()
        self._text, self._length = [], 0
        if not text:
            return
        owner = self._owner()
        if owner is not None:
            self._of_participant(owner, local, text)
        elif local == "label" and (stream := self._within("stream")) is not None:
            self._label(stream, text)
        elif local in {"start-time", "associate-time"} and self._within("session") is not None:
            self._head.setdefault("started", text)
        elif local == "sipsessionid":
            self._head.setdefault("sip_session", text)

    def _of_participant(self, owner: str, local: str, text: str) -> None:
        match local:
            case "name" | "aor":
                self._set(owner, **{local: text})
            case "send":
                streams = self._sends.setdefault(owner, [])
                if len(self._sends) <= _MOST_PARTICIPANTS and len(streams) < _MOST_STREAMS:
                    streams.append(text)
            case "associate-time" | "start-time":
                self._set(owner, associated=text)
            case "disassociate-time":
                self._set(owner, disassociated=text)
            case "callingparty":
                self._set(owner, calling=text.lower() == "true")

    def metadata(self) -> Metadata:
        """Return what was collected, with streams named by their labels."""
        participants = tuple(
            replace(
                each,
                labels=tuple(dict.fromkeys(self._labels.get(stream, stream) for stream in self._sends.get(name, ()))),
            )
            for name, each in self._participants.items()
        )
        return Metadata(participants=participants, **self._head)

    def _within(self, name: str) -> Mapping[str, str] | None:
        return next((attributes for local, attributes in reversed(self._path) if local == name), None)

    def _owner(self) -> str | None:
        """Return the id of the participant that the present element belongs to."""
        for local, attributes in reversed(self._path):
            if local in {"participant", "participantsessionassoc", "participantstreamassoc", "participantassoc"}:
                return _id(attributes, "participant")
        return None

    def _set(self, owner: str | None, **stated: str | bool) -> None:
        """Set what is stated about a participant; the first statement of each member counts."""
        if owner is None or (owner not in self._participants and len(self._participants) >= _MOST_PARTICIPANTS):
            return
        known = self._participants.get(owner, Participant(id=owner))
        fresh = {key: value for key, value in stated.items() if value != "" and getattr(known, key) in ("", None)}
        self._participants[owner] = replace(known, **fresh)  # type: ignore[arg-type]  # the keys are fields

    def _label(self, stream: Mapping[str, str], label: str) -> None:
        identifier = _id(stream, "stream")
        if identifier and len(self._labels) < _MOST_STREAMS:
            self._labels.setdefault(identifier, label)


def _id(attributes: Mapping[str, str], of: str) -> str:
    return attributes.get(f"{of}_id") or attributes.get("id") or attributes.get(f"{of}id") or attributes.get(of) or ""


def _local(name: str) -> str:
    return name.rpartition(":")[2].lower()
