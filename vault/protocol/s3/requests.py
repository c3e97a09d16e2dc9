"""Operations, conditions, XML documents and object keys of the S3 subset for recorders.

After the Amazon S3 API reference (path style). Recorders only add recordings. Requests that read, copy or delete, or
list more than unfinished uploads, are refused.
"""

from __future__ import annotations

import enum
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Final

from vault.errors import Forbidden, Invalid
from vault.ids import escaped_call_key
from vault.model import CallFacts
from vault.protocol.facts.siprec import walk
from vault.protocol.facts.stated import Reading, instant
from vault.protocol.s3.checksums import parse_digest

# -- which operation a request is -----------------------------------------------------------------------------------

MAX_PARTS: Final = 10_000
MAX_XML_BYTES: Final = 4 << 20
META: Final = "x-amz-meta-"

_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_CALL_KEY: Final = re.compile(r"[A-Za-z0-9._~@:+,-]{1,180}")
_PART_NUMBER: Final = re.compile(r"[1-9]\d{0,4}", re.ASCII)
_MAX_DEPTH: Final = 8
_EXTRA: Final = "s3_"
_AGAIN: Final = ("mtime", "md5chksum")
_CHECKSUM: Final = "Checksum"
"""The beginning of the names of a part's checksum members."""


class S3Operation(enum.StrEnum):
    """The operations that a recorder may request."""

    PUT_OBJECT = "PutObject"
    CREATE_UPLOAD = "CreateMultipartUpload"
    UPLOAD_PART = "UploadPart"
    COMPLETE_UPLOAD = "CompleteMultipartUpload"
    ABORT_UPLOAD = "AbortMultipartUpload"
    LIST_PARTS = "ListParts"
    LIST_UPLOADS = "ListMultipartUploads"
    HEAD_OBJECT = "HeadObject"
    HEAD_BUCKET = "HeadBucket"
    GET_LOCATION = "GetBucketLocation"


_OPERATIONS: Final[Mapping[tuple[str, bool, frozenset[str]], S3Operation]] = {
    ("PUT", True, frozenset()): S3Operation.PUT_OBJECT,
    ("POST", True, frozenset({"uploads"})): S3Operation.CREATE_UPLOAD,
    ("PUT", True, frozenset({"partNumber", "uploadId"})): S3Operation.UPLOAD_PART,
    ("POST", True, frozenset({"uploadId"})): S3Operation.COMPLETE_UPLOAD,
    ("DELETE", True, frozenset({"uploadId"})): S3Operation.ABORT_UPLOAD,
    ("GET", True, frozenset({"uploadId"})): S3Operation.LIST_PARTS,
    ("GET", False, frozenset({"uploads"})): S3Operation.LIST_UPLOADS,
    ("HEAD", True, frozenset()): S3Operation.HEAD_OBJECT,
    ("HEAD", False, frozenset()): S3Operation.HEAD_BUCKET,
    ("GET", False, frozenset({"location"})): S3Operation.GET_LOCATION,
}
_WITHOUT_EFFECT: Final = frozenset({"x-id"})
_OF_A_LISTING: Final = frozenset(
    {
        "max-parts",
        "part-number-marker",
        "prefix",
        "delimiter",
        "key-marker",
        "upload-id-marker",
        "max-uploads",
        "encoding-type",
    }
)


def operation(method: str, key: str, query: Sequence[tuple[str, str]], *, copies: bool) -> S3Operation:
    """Return the operation of a request; Forbidden for operations that recorders may not use."""
    passed = _WITHOUT_EFFECT | (_OF_A_LISTING if method == "GET" else frozenset())
    names = frozenset(name for name, _ in query if name not in passed and not name.lower().startswith("x-amz-"))
    found = None if copies else _OPERATIONS.get((method, bool(key), names))
    if found is None:
        raise Forbidden(
            "recorders only add recordings here: reading, listing, copying, deleting and settings are refused",
            hint="play and export over /v1/recordings",
            s3="AccessDenied",
        )
    return found


def part_number(text: str) -> int:
    """Return a part number; Invalid unless it is 1 to 10,000."""
    if not _PART_NUMBER.fullmatch(text) or int(text) > MAX_PARTS:
        raise Invalid(f"a part number is 1 to {MAX_PARTS}", s3="InvalidArgument")
    return int(text)


# -- object keys, call facts and audio types ------------------------------------------------------------------------


def call_key_for(key: str) -> str:
    """Return the call key of an object key: unchanged if possible, else escaped, else hashed; all are different."""
    return key if _CALL_KEY.fullmatch(key) else escaped_call_key(key)


def object_key(raw: str) -> str:
    """Return an object key with bytes that are not UTF-8 replaced, as it is stored and shown."""
    return raw.encode("utf-8", "surrogateescape").decode(errors="replace")


def meta_facts(headers: Sequence[tuple[str, str]]) -> tuple[CallFacts, datetime | None]:
    """Return the facts and the start of the call that x-amz-meta-{from,to,direction,started,tags} state.

    The values for `rclone_headers` are stored with the facts.
    """
    reading = Reading()
    found: dict[str, str] = {}
    for name, value in headers:
        if name.lower().startswith(META):
            reading.keep_first(found, name.lower(), value)
    started = reading.started(f"{META}started", found.get(f"{META}started"))
    facts = reading.facts(found, named={name: META + name for name in ("from", "to", "direction", "tags")})
    extra = {_EXTRA + name: reading.text(META + name, found.get(META + name)) for name in _AGAIN}
    return replace(facts, extra={name: value for name, value in extra.items() if value is not None}), started


def rclone_headers(extra: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers x-amz-meta-{mtime,md5chksum}, with which rclone recognises a file that it has sent."""
    return {META + name: extra[_EXTRA + name] for name in _AGAIN if _EXTRA + name in extra}


_BY_ENDING: Final = {
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "webm": "audio/webm",
    "mp3": "audio/mpeg",
}


def audio_type(content_type: str | None) -> str | None:
    """Return the declared content type if it is one of audio, else None: many clients send one type for all files."""
    name = (content_type or "").partition(";")[0].strip().lower()
    return content_type if name.startswith("audio/") or name in {"video/webm", "application/ogg"} else None


def type_by_name(key: str) -> str | None:
    """Return the content type for a key's file extension, for an upload in parts that begins without bytes."""
    return _BY_ENDING.get(key.rpartition(".")[2].lower())


# -- ETags ----------------------------------------------------------------------------------------------------------


def unquoted(etag: str) -> str:
    """Return an ETag in lower case without quotes, which not all clients send."""
    return etag.strip().removeprefix('"').removesuffix('"').lower()


def upload_etag(etags: Sequence[str]) -> str:
    """Return the ETag of an object made of parts: the MD5 of their MD5s, a hyphen and their number."""
    joined = b"".join(bytes.fromhex(etag) for etag in etags)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"


# -- XML ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPart:
    """A part that CompleteMultipartUpload names; `etag` is 32 hex digits, `checksums` are digests by algorithm."""

    number: int
    etag: str
    checksums: Mapping[str, bytes] = field(default_factory=dict)


class _Parts:
    """Collects Part elements; other elements are ignored."""

    def __init__(self) -> None:
        self.found: list[NamedPart] = []
        self._path: list[str] = []
        self._texts: dict[str, str] = {}

    def start(self, name: str, _: Mapping[str, str]) -> None:
        self._path.append(name.rpartition(":")[2])
        if len(self._path) > _MAX_DEPTH:
            raise _malformed()
        if self._path[1:] == ["Part"]:
            self._texts = {}

    def text(self, data: str) -> None:
        if len(self._path) == 3 and self._path[1] == "Part":  # noqa: PLR2004  # a member of a part
            self._texts[self._path[2]] = self._texts.get(self._path[2], "") + data

    def end(self, _: str) -> None:
        if self._path[1:] == ["Part"]:
            etag = unquoted(self._texts.get("ETag", ""))
            if len(self.found) >= MAX_PARTS or not re.fullmatch("[0-9a-f]{32}", etag):
                raise _malformed()
            number = part_number(self._texts.get("PartNumber", "").strip())
            stated = {
                name.removeprefix(_CHECKSUM).lower(): value
                for name, value in self._texts.items()
                if name.startswith(_CHECKSUM)
            }
            checksums = {name: parse_digest(name, value.strip()) for name, value in stated.items()}
            self.found.append(NamedPart(number=number, etag=etag, checksums=checksums))
        if len(self._path) == 1 and self._path[0] != "CompleteMultipartUpload":
            raise _malformed()
        self._path.pop()


def parse_complete(document: bytes) -> Sequence[NamedPart]:
    """Return the parts that CompleteMultipartUpload lists.

    Invalid if the document is malformed, longer than 4 MiB or has a document type, or if the parts are not in ascending
    order.
    """
    if len(document) > MAX_XML_BYTES:
        raise _malformed()
    parts = _Parts()
    try:
        walk(document, parts)
    except ValueError as error:
        raise _malformed() from error
    numbers = [part.number for part in parts.found]
    if not numbers:
        raise _malformed()
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        raise Invalid("the parts are not listed in ascending order", s3="InvalidPartOrder")
    return parts.found


def _malformed() -> Invalid:
    return Invalid("the XML is not a list of parts", s3="MalformedXML")


Tree = Sequence[tuple[str, "str | Tree"]]


def render(root: str, members: Tree) -> bytes:
    """Return an XML document in S3's namespace; a member has a text or members."""
    element = ET.Element(root, xmlns=_NAMESPACE)
    _fill(element, members)
    return bytes(ET.tostring(element, encoding="utf-8", xml_declaration=True))


def location(region: str) -> bytes:
    """Return the answer of GetBucketLocation."""
    element = ET.Element("LocationConstraint", xmlns=_NAMESPACE)
    element.text = region
    return bytes(ET.tostring(element, encoding="utf-8", xml_declaration=True))


def _fill(element: ET.Element, members: Tree) -> None:
    for name, value in members:
        child = ET.SubElement(element, name)
        if isinstance(value, str):
            child.text = _XML_UNSPEAKABLE.sub("\ufffd", value)
        else:
            _fill(child, value)


_XML_UNSPEAKABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def error_document(code: str, message: str, *, request_id: str) -> bytes:
    """Return S3's error document, which has no namespace."""
    element = ET.Element("Error")
    _fill(element, [("Code", code), ("Message", message), ("RequestId", request_id)])
    return bytes(ET.tostring(element, encoding="utf-8", xml_declaration=True))


ERROR_STATUS: Final[Mapping[str, int]] = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "BadDigest": 400,
    "ConditionalRequestConflict": 409,
    "EntityTooLarge": 400,
    "IncompleteBody": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidDigest": 400,
    "InvalidPart": 400,
    "InvalidPartOrder": 400,
    "InvalidRequest": 400,
    "MalformedXML": 400,
    "MetadataTooLarge": 400,
    "MissingContentLength": 411,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "NotImplemented": 501,
    "OperationAborted": 409,
    "PreconditionFailed": 412,
    "RequestTimeTooSkewed": 403,
    "RequestTimeout": 400,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "XAmzContentSHA256Mismatch": 400,
}
"""The HTTP statuses of the S3 error codes that this subset uses."""


# -- holds and dates that a request asks for ------------------------------------------------------------------------
# Conditions in the head of an S3 write: a hold, a longer retention, or that the key has no object yet.
#
# After the Amazon S3 API reference, "PutObject" and "Locking objects with Object Lock". A condition that the vault
# does not offer is refused, because a success would promise it.

_LOCK: Final = "x-amz-object-lock-"
_HOLD: Final = _LOCK + "legal-hold"
_MODE: Final = _LOCK + "mode"
_UNTIL: Final = _LOCK + "retain-until-date"
_LOCKS: Final = frozenset({_HOLD, _MODE, _UNTIL})
_NOT_OFFERED: Final[Mapping[str, str]] = {
    "if-match": "a recording is never overwritten, so If-Match is not offered",
    "x-amz-write-offset-bytes": "an object is not appended to: send it in parts",
    "x-amz-server-side-encryption-customer-algorithm": "the vault seals with keys of its own, not a client's",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The conditions: a `legal_hold`, `keep_until` at least that instant, `only_new` if the key has no object."""

    legal_hold: bool = False
    keep_until: datetime | None = None
    only_new: bool = False


def terms(headers: Sequence[tuple[str, str]], *, begins: bool, now: datetime) -> Terms:
    """Return the conditions in the headers; Invalid, with S3's code, for a malformed one or one that is not offered.

    A lock is accepted only in the request that `begins` the object.
    """
    named: dict[str, str] = {}
    for name, value in headers:
        named.setdefault(name.lower(), value.strip())
    for name, why in _NOT_OFFERED.items():
        if name in named:
            raise Invalid(f"{why}; nothing was kept", s3="NotImplemented")
    if named.get("if-none-match", "*") != "*":
        raise Invalid("If-None-Match is * or is left out; nothing was kept", s3="NotImplemented")
    locks = {name for name in named if name.startswith(_LOCK)}
    if locks - _LOCKS:
        raise Invalid(f"{min(locks - _LOCKS)} is not offered; nothing was kept", s3="NotImplemented")
    if locks and not begins:
        raise Invalid(
            "a lock is asked for with PutObject or CreateMultipartUpload; nothing was kept", s3="InvalidRequest"
        )
    return Terms(
        legal_hold=_hold(named.get(_HOLD)),
        keep_until=_until(named.get(_MODE), named.get(_UNTIL), now),
        only_new="if-none-match" in named,
    )


def _hold(stated: str | None) -> bool:
    if stated not in (None, "ON", "OFF"):
        raise Invalid(f"{_HOLD} is ON or OFF; nothing was kept", s3="InvalidArgument")
    return stated == "ON"


def _until(mode: str | None, stated: str | None, now: datetime) -> datetime | None:
    if mode is None and stated is None:
        return None
    if mode is None or stated is None:
        raise Invalid(f"{_MODE} and {_UNTIL} come together; nothing was kept", s3="InvalidArgument")
    if mode == "COMPLIANCE":
        raise Invalid(
            "COMPLIANCE promises that nobody deletes the object before its date, but here two people may decide to; "
            "nothing was kept",
            hint="ask for GOVERNANCE, and for a legal hold if it must not be deleted",
            s3="NotImplemented",
        )
    if mode != "GOVERNANCE":
        raise Invalid(f"{_MODE} is GOVERNANCE; nothing was kept", s3="InvalidArgument")
    try:
        until = instant(stated)
    except ValueError as error:
        raise Invalid(f"{_UNTIL} is not an instant with a time zone; nothing was kept", s3="InvalidArgument") from error
    if until <= now:
        raise Invalid(f"{_UNTIL} has passed; nothing was kept", s3="InvalidArgument")
    return until
