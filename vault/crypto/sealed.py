"""Seals and opens whole objects: segments, manifests, and a recording's call facts; and tests which key opens one.

Reading a range of a segment takes three steps against an object store::

    opener = SegmentOpener(key, header, length=ref.length)          # the catalog knows place and length
    opener.check_prefix(get(0, opener.prefix_bytes))                # refuses swapped objects and wrong keys
    a, b = opener.ciphertext_range(start, end)                      # plaintext offsets inside the segment
    audio = opener.open(start, end, get(a, b))
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.crypto import chunked
from vault.crypto.chunked import Bytes, Pieces
from vault.crypto.derive import Purpose, subkey
from vault.errors import FormatError, Tampered, TooLarge, Truncated
from vault.format import codec
from vault.format.manifest import Manifest, decode_manifest, encode_manifest, manifest_frame, parse_manifest_object
from vault.format.names import check_recording
from vault.format.segment import (
    MAX_SEGMENT_BYTES,
    SegmentHeader,
    SegmentPlace,
    encode_header,
    parse_segment,
    segment_frame,
)
from vault.ids import RecordingId
from vault.model import CallFacts, Coordinate, DataKey

# -- which key opens an object ------------------------------------------------------------------------------------
# Tests from a sealed object's first bytes whether a key opens it, and tries each 32-byte window of data as a key.
#
# A window is first compared with the 20 bytes of the key commitment that lie in the first block of HKDF's output. A
# match is confirmed with the whole commitment.

WINDOW_BYTES: Final = chunked.KEY_BYTES
FEWEST_DISTINCT: Final = 13
"""Windows with fewer different byte values are skipped. A random key is skipped with a probability below 2^-74."""

_BLOCK: Final = slice(44, 64)
_COMMITTED: Final = slice(0, 20)
_SHA512: Final = "sha512"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One sealed object to test keys against: the coordinate of its key, and its first 56 bytes."""

    recording: RecordingId
    coordinate: Coordinate
    purpose: Purpose
    context: bytes
    prefix: bytes

    def opens(self, key: DataKey) -> bool:
        """Tell whether `key` is the object's data key."""
        return self._commits(subkey(key, self.purpose))

    def _commits(self, input_key: bytes) -> bool:
        try:
            chunked.Opener(input_key, self.context, self.prefix)
        except Tampered:
            return False
        return True

    def opens_with_input(self, input_key: bytes) -> bool:
        """Tell whether these 32 bytes are the input key of the object's message."""
        return self._commits(input_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A window that opens a target: the data contains a key in clear at this offset."""

    offset: int
    target: int
    kind: str


def windows(data: bytes, targets: Sequence[Target], *, start: int, end: int) -> Iterator[Hit]:
    """Try each window that starts in `[start, end)` as data key and as input key of each target; yield the matches."""
    digest = hmac.digest
    labels = {target.purpose: target.purpose.encode() + b"\0\1" for target in targets}
    known = [
        (
            number,
            target.purpose,
            chunked.commitment_info(target.prefix[: chunked.SALT_BYTES], target.context) + b"\1",
            bytes(target.prefix[chunked.SALT_BYTES :])[_COMMITTED],
        )
        for number, target in enumerate(targets)
    ]
    for offset in range(start, min(end, len(data) - WINDOW_BYTES + 1)):
        window = data[offset : offset + WINDOW_BYTES]
        if len(set(window)) < FEWEST_DISTINCT:
            continue
        leaves = {purpose: digest(window, label, _SHA512)[:32] for purpose, label in labels.items()}
        for number, purpose, info, expected in known:
            if digest(window, info, _SHA512)[_BLOCK] == expected and targets[number].opens_with_input(window):
                yield Hit(offset=offset, target=number, kind="input key")
            leaf = digest(leaves[purpose], info, _SHA512)[_BLOCK] == expected
            if leaf and targets[number].opens(DataKey(window)):
                yield Hit(offset=offset, target=number, kind="data key")


# -- sealing and opening ------------------------------------------------------------------------------------------

HEAD_BYTES: Final = 1024
"""The header, salt and commitment of an object lie within this many of its first bytes."""

_FACTS_VERSION = b"\x01"
_FACTS_NONCE_BYTES = 12


def seal_segment(key: DataKey, header: SegmentHeader, pieces: Pieces, *, salt: bytes) -> bytearray:
    """Return the whole object for 1 byte to 8 MiB of plaintext, given as one buffer or as pieces in order.

    `salt` is 24 random bytes, fresh for every attempt. TooLarge above 8 MiB; ValueError without plaintext.
    """
    length = chunked.total_length(pieces)
    if length > MAX_SEGMENT_BYTES:
        raise TooLarge(f"a segment of {length} bytes; the bound is {MAX_SEGMENT_BYTES}")
    if not length:
        raise ValueError("a segment carries at least one byte")
    input_key = subkey(key, Purpose.SEGMENT)
    return chunked.seal(input_key, salt, encode_header(header), pieces, head=segment_frame(header))


def open_segment(
    key: DataKey, expected: SegmentHeader | SegmentPlace | None, data: Bytes
) -> tuple[SegmentHeader, bytes]:
    """Return header and plaintext of a whole object.

    `expected` is the header or the place that the object must have; None accepts any that authenticates under `key`.
    Raises FormatError, Truncated or Tampered, and then returns nothing.
    """
    header, context, start = parse_segment(data)
    with _naming_segment(header):
        _require_place(header, expected)
        plaintext = chunked.open_message(subkey(key, Purpose.SEGMENT), context, memoryview(data)[start:])
    return header, plaintext


class SegmentOpener:
    """Opens plaintext ranges of one segment from ranged reads of its object.

    `length` is the segment's plaintext length, from an authenticated manifest or the catalog. It determines the size of
    the object, so a shortened or extended object fails as soon as its end is read.
    """

    __slots__ = ("_context", "_frame_bytes", "_key", "_opener", "header", "length")

    def __init__(self, key: DataKey, header: SegmentHeader, *, length: int) -> None:
        self.header = header
        self.length = length
        self._key = key
        self._context = encode_header(header)
        self._frame_bytes = len(segment_frame(header))
        self._opener: chunked.Opener | None = None

    @property
    def prefix_bytes(self) -> int:
        """How many of the object's first bytes `check_prefix` needs."""
        return self._frame_bytes + chunked.PREFIX_BYTES

    @property
    def object_bytes(self) -> int:
        """The exact size of the object."""
        return self._frame_bytes + chunked.sealed_length(self.length)

    def check_prefix(self, head: Bytes) -> None:
        """Check that the object's first bytes state this header and were sealed under this key.

        `head` is at least the first `prefix_bytes` of the object. Raises FormatError, Truncated or Tampered.
        """
        found, _, start = parse_segment(head)
        with _naming_segment(self.header):
            _require_place(found, self.header)
            prefix = memoryview(head)[start : start + chunked.PREFIX_BYTES]
            self._opener = chunked.Opener(subkey(self._key, Purpose.SEGMENT), self._context, prefix)

    def ciphertext_range(self, start: int, end: int) -> tuple[int, int]:
        """Return the bytes `[a, b)` of the object that hold plaintext `[start, end)`; ValueError outside the segment.

        They are whole chunks, so up to 32 KiB more than the range.
        """
        window = chunked.chunk_window(start, end, self.length)
        return self._frame_bytes + window.start, self._frame_bytes + window.end

    def open(self, start: int, end: int, ciphertext: Bytes) -> bytes:
        """Return plaintext `[start, end)` of the segment from the bytes that `ciphertext_range` returned.

        Raises Tampered or Truncated, and then returns nothing. ValueError before `check_prefix`.
        """
        if self._opener is None:
            raise ValueError("the segment's prefix has not been checked yet")
        window = chunked.chunk_window(start, end, self.length)
        with _naming_segment(self.header):
            return self._opener.window(window, ciphertext)


def seal_manifest(key: DataKey, manifest: Manifest, *, salt: bytes) -> bytearray:
    """Return the whole manifest object; `salt` is 24 random bytes, fresh for every call."""
    head, context = manifest_frame(manifest.header)
    return chunked.seal(subkey(key, Purpose.MANIFEST), salt, context, encode_manifest(manifest), head=head)


def open_manifest(key: DataKey, recording: RecordingId, coordinate: Coordinate, data: Bytes) -> Manifest:
    """Return the manifest of this recording. Raises FormatError, Truncated or Tampered."""
    header, context, start = parse_manifest_object(data)
    subject = f"the manifest of {recording}"
    if (header.recording, header.coordinate) != (recording, coordinate):
        raise Tampered(f"{subject} states another recording or coordinate; it was not opened", cause="position")
    with _naming(subject):
        opened = chunked.open_message(subkey(key, Purpose.MANIFEST), context, memoryview(data)[start:])
    manifest = decode_manifest(opened)
    if manifest.header != header:
        raise FormatError(f"{subject} contradicts its own header")
    return manifest


def seal_facts(key: DataKey, recording: RecordingId, facts: CallFacts, *, nonce: bytes) -> bytes:
    """Return `0x01 | nonce | AES-256-GCM(facts)` under the metadata part's key, bound to the recording.

    `nonce` is 12 random bytes, fresh for every call.
    """
    if len(nonce) != _FACTS_NONCE_BYTES:
        raise ValueError(f"a nonce is {_FACTS_NONCE_BYTES} bytes")
    plain = codec.pack(
        {
            "caller": facts.caller,
            "called": facts.called,
            "direction": facts.direction,
            "tags": list(facts.tags),
            "extra": dict(facts.extra),
        }
    )
    aead = AESGCM(subkey(key, Purpose.FACTS))
    return _FACTS_VERSION + nonce + aead.encrypt(nonce, plain, _facts_aad(recording))


def open_facts(key: DataKey, recording: RecordingId, sealed: bytes) -> CallFacts:
    """Return the facts that `seal_facts` sealed for this recording. Raises FormatError, Truncated or Tampered."""
    if sealed[:1] != _FACTS_VERSION:
        raise FormatError(f"the call facts of {recording} have an unknown version")
    start = 1 + _FACTS_NONCE_BYTES
    if len(sealed) < start + chunked.TAG_BYTES:
        raise Truncated(f"the call facts of {recording} are cut short")
    try:
        plain = AESGCM(subkey(key, Purpose.FACTS)).decrypt(sealed[1:start], sealed[start:], _facts_aad(recording))
    except InvalidTag as error:
        raise Tampered(f"the call facts of {recording} failed authentication; nothing was returned") from error
    value = codec.unpack(plain)
    texts = ("caller", "called", "direction")
    kinds = {name: type(value.get(name)) for name in texts} if isinstance(value, dict) else {}
    caller, called, direction, tags, extra = codec.fields(value, **kinds, tags=list, extra=dict)
    if not all(isinstance(text, str) or text is None for text in (caller, called, direction)):
        raise FormatError(f"the call facts of {recording} hold a field that is not text")
    if not all(isinstance(text, str) for text in [*tags, *_texts(extra)]):
        raise FormatError(f"the call facts of {recording} hold a tag that is not text")
    return CallFacts(caller=caller, called=called, direction=direction, tags=tuple(tags), extra=extra)


def _facts_aad(recording: RecordingId) -> bytes:
    return _FACTS_VERSION + check_recording(recording).encode()


def _texts(extra: Mapping[str, Any]) -> list[Any]:
    return [*extra.keys(), *extra.values()]


def _require_place(found: SegmentHeader, expected: SegmentHeader | SegmentPlace | None) -> None:
    if expected is None:
        return
    if (found.place if isinstance(expected, SegmentPlace) else found) != expected:
        raise Tampered("its header states another place than it was read from", cause="position")


@contextmanager
def _naming_segment(header: SegmentHeader) -> Iterator[None]:
    with _naming(f"segment {header.index} of {header.recording}"):
        yield


@contextmanager
def _naming(subject: str) -> Iterator[None]:
    """Add to an error raised inside which object failed, and that nothing of it was returned."""
    try:
        yield
    except Tampered as error:
        message = f"{subject} failed authentication: its bytes, header or position changed after it was stored"
        raise Tampered(f"{message} ({error.message}); nothing of it was returned", hint=None, **error.facts) from error
    except Truncated as error:
        message = f"{subject} is cut short ({error.message}); nothing of it was returned"
        raise Truncated(message, hint=None, **error.facts) from error
