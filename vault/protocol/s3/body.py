"""One S3 request body while it arrives: `aws-chunked` undone, and compared with its stated length and digests."""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from vault.errors import Forbidden, Invalid, TooLarge
from vault.protocol.s3.checksums import ALGORITHMS, Checksum, parse_digest
from vault.protocol.s3.sigv4 import UNSIGNED_PAYLOAD, ChunkSigner, Claim, RequestHead

# -- `aws-chunked` undone -------------------------------------------------------------------------------------------
# A decoder, without I/O, for `aws-chunked` bodies: signed or unsigned chunks, with or without a trailer.
#
# After "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks" and "… Trailing
# Headers" in the Amazon S3 API reference::
#
#     length in hex [;chunk-signature=64 hex] CRLF bytes CRLF … 0 [;chunk-signature=…] CRLF [trailer lines] CRLF
#
# minio-go ends trailer lines with LF, and sends one empty line too many: before their signature, or after an unsigned
# trailer.

MAX_CHUNK_BYTES: Final = 5 << 30
_MAX_LINE: Final = 1024
_MAX_TRAILERS: Final = 8
_HEAD: Final = re.compile(rb"([0-9a-fA-F]{1,10})(?:;chunk-signature=([0-9a-f]{64}))?")
_TRAILER: Final = re.compile(rb"([A-Za-z0-9-]{1,64})\s*:\s*([\x21-\x7e]{1,256})\s*")
_TRAILER_SIGNATURE: Final = "x-amz-trailer-signature"


class State(enum.Enum):
    """The part of the body that the next byte belongs to."""

    HEAD = "the line before a chunk"
    DATA = "a chunk"
    GAP = "the line end behind a chunk"
    TRAILER = "the trailer"
    DONE = "nothing"


class ChunkedDecoder:
    """Decodes a chunked body. It holds no more than the bytes fed at once and one line.

    With a signer all chunks must be signed. A wrong signature raises Forbidden after the chunk's bytes were returned,
    so nothing may be kept before `finish`. `vouched` counts the bytes of chunks whose signatures were verified.
    """

    def __init__(self, *, signer: ChunkSigner | None, trailer: bool) -> None:
        self._signer = signer
        self._trailer = trailer
        self._state = State.HEAD
        self._held = b""
        self._left = 0
        self._decoded = 0
        self._hash = hashlib.sha256()
        self._signature = b""
        self._spare = True
        """Whether the superfluous empty line has not come yet."""
        self.vouched = 0
        self.trailers: dict[str, str] = {}
        self._steps: Mapping[State, Callable[[memoryview], tuple[memoryview, State]]] = {
            State.HEAD: self._line(self._head),
            State.GAP: self._line(self._gap),
            State.TRAILER: self._line(self._trailer_line),
            State.DONE: self._line(self._surplus),
        }

    def feed(self, data: bytes) -> list[bytes]:
        """Return the decoded bytes in `data`, as pieces; Invalid if the body is malformed."""
        pieces: list[bytes] = []
        rest = memoryview(data)
        while rest:
            if self._state is State.DATA:
                piece = bytes(rest[: self._left])
                rest = rest[len(piece) :]
                pieces.append(piece)
                self._take(piece)
            else:
                rest, self._state = self._steps[self._state](rest)
        return pieces

    def finish(self) -> None:
        """Raise Invalid unless the body has ended with its last chunk and trailer."""
        if self._state is not State.DONE or self._held:
            raise Invalid("the body does not end after its last chunk and trailer", s3="IncompleteBody")

    def _take(self, piece: bytes) -> None:
        self._decoded += len(piece)
        self._left -= len(piece)
        if self._signer is not None:
            self._hash.update(piece)
        if not self._left:
            self._check()
            self._state = State.GAP

    def _check(self) -> None:
        if self._signer is not None:
            expected = self._signer.chunk(self._hash.hexdigest())
            if not hmac.compare_digest(expected.encode(), self._signature):
                raise Forbidden("a chunk's signature does not match; nothing was kept", s3="SignatureDoesNotMatch")
            self._hash = hashlib.sha256()
        self.vouched = self._decoded

    def _line(self, then: Callable[[bytes], State]) -> Callable[[memoryview], tuple[memoryview, State]]:
        """Return a step that collects a line and passes it to `then`."""

        def step(rest: memoryview) -> tuple[memoryview, State]:
            window = self._held + bytes(rest[: _MAX_LINE + 1 - len(self._held)])
            end = window.find(b"\n")
            if end < 0:
                if len(window) > _MAX_LINE:
                    raise _broken("a line is too long")
                taken = len(window) - len(self._held)
                self._held = window
                return rest[taken:], self._state
            taken = end + 1 - len(self._held)
            self._held = b""
            return rest[taken:], then(window[:end].removesuffix(b"\r"))

        return step

    def _head(self, line: bytes) -> State:
        match = _HEAD.fullmatch(line)
        if match is None or (match[2] is None) is not (self._signer is None):
            raise _broken("a chunk does not begin with its length and, if the body is signed, its signature")
        self._left = int(match[1], 16)
        self._signature = match[2] or b""
        if self._left > MAX_CHUNK_BYTES:
            raise _broken("a chunk is longer than 5 GiB")
        if self._left:
            return State.DATA
        self._check()
        return State.TRAILER

    @staticmethod
    def _gap(line: bytes) -> State:
        if line:
            raise _broken("a chunk is longer than its stated length")
        return State.HEAD

    def _trailer_line(self, line: bytes) -> State:
        if not line:
            return self._close()
        match = _TRAILER.fullmatch(line)
        if match is None or not self._trailer or len(self.trailers) >= _MAX_TRAILERS:
            raise _broken("its trailer is malformed or was not announced")
        name = match[1].decode().lower()
        if name in self.trailers:
            raise _broken("a trailer is repeated")
        self.trailers[name] = match[2].decode()
        return State.TRAILER

    def _close(self) -> State:
        found = self.trailers.pop(_TRAILER_SIGNATURE, "")
        if self._signer is None or not self._trailer:
            return State.DONE
        if not found and self._spare:
            self._spare = False
            return State.TRAILER
        lines = "".join(f"{name}:{value}\n" for name, value in self.trailers.items())
        if not hmac.compare_digest(self._signer.trailer(lines.encode()), found):
            raise Forbidden("the trailer's signature does not match; nothing was kept", s3="SignatureDoesNotMatch")
        return State.DONE

    def _surplus(self, line: bytes) -> State:
        if line or not self._spare:
            raise _broken("bytes follow its end")
        self._spare = False
        return State.DONE


def _broken(why: str) -> Invalid:
    return Invalid(f"the body is not aws-chunked: {why}; nothing was kept", s3="IncompleteBody")


# -- a whole body, and what it is compared with ---------------------------------------------------------------------

CHECKSUM: Final = "x-amz-checksum-"

_SIGNED_CHUNKS: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_UNSIGNED_TRAILER: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_TRAILER_DIGEST: Final = "-TRAILER"
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LENGTH: Final = re.compile(r"\d{1,13}", re.ASCII)
_NO_DIGEST: Final = frozenset({"algorithm", "type", "mode"})
"""The ends of headers that begin with CHECKSUM and hold no digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyPlan:
    """What the head of a request states about its body.

    `length` counts decoded bytes; None if it is not stated. `checksums` are digests by algorithm; None for a digest
    that comes in the trailer.
    """

    length: int | None
    sha256: str | None = None
    chunked: bool = False
    signed: bool = False
    trailer: bool = False
    md5: bytes | None = None
    checksums: Mapping[str, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeChecks:
    """What CompleteMultipartUpload states about the whole object.

    `whole` are digests of its bytes, `composite` are digests of its parts' concatenated digests, `size` counts bytes.
    """

    whole: Mapping[str, bytes] = field(default_factory=dict)
    composite: Mapping[str, bytes] = field(default_factory=dict)
    size: int | None = None


def plan_body(head: RequestHead, claim: Claim, *, audio: bool = True) -> BodyPlan:
    """Return what to expect of the body; Invalid if the head is contradictory, or asks for what is not offered.

    Without `audio` the checksums in the head do not apply to the body.
    """
    mode = claim.payload
    chunked = mode.startswith("STREAMING-")
    if chunked and mode.removesuffix(_TRAILER_DIGEST) != _SIGNED_CHUNKS and mode != _UNSIGNED_TRAILER:
        raise Invalid("this x-amz-content-sha256 is not offered", s3="NotImplemented")
    if not chunked and mode != UNSIGNED_PAYLOAD and not _SHA256.fullmatch(mode):
        raise Invalid("x-amz-content-sha256 is neither a hash nor a known word", s3="InvalidArgument")
    length = head.header("x-amz-decoded-content-length" if chunked else "content-length")
    if chunked and length is None:
        raise Invalid("x-amz-decoded-content-length is missing", s3="MissingContentLength")
    md5 = head.header("content-md5")
    return BodyPlan(
        length=_length(length),
        sha256=mode if _SHA256.fullmatch(mode) else None,
        chunked=chunked,
        signed=mode.startswith(_SIGNED_CHUNKS),
        trailer=mode.endswith(_TRAILER_DIGEST),
        md5=None if md5 is None else parse_digest("md5", md5),
        checksums=_checksums(head) if audio else {},
    )


def _length(stated: str | None) -> int | None:
    if stated is not None and not _LENGTH.fullmatch(stated):
        raise Invalid("the body's length is not a byte count", s3="InvalidArgument")
    return None if stated is None else int(stated)


def whole_checks(head: RequestHead, *, parts: int) -> WholeChecks:
    """Return what CompleteMultipartUpload states about the object of `parts` parts; Invalid if it is malformed.

    A digest is composite if the checksum type states it, or if a hyphen and the number of parts follow it.
    """
    whole: dict[str, bytes] = {}
    composite: dict[str, bytes] = {}
    for algorithm, stated in _stated(head):
        value, hyphen, count = stated.partition("-")
        if hyphen and count != str(parts):
            raise Invalid("a checksum is for another number of parts; nothing was recorded", s3="BadDigest")
        of_parts = hyphen or (head.header("x-amz-checksum-type") or "").upper() == "COMPOSITE"
        (composite if of_parts else whole)[algorithm] = parse_digest(algorithm, value)
    return WholeChecks(whole=whole, composite=composite, size=_length(head.header("x-amz-mp-object-size")))


def _stated(head: RequestHead) -> Iterator[tuple[str, str]]:
    """Yield algorithm and value of the checksums in the head."""
    for name, value in head.headers:
        algorithm = name.lower().removeprefix(CHECKSUM)
        if name.lower().startswith(CHECKSUM) and algorithm not in _NO_DIGEST:
            yield algorithm, value


def _checksums(head: RequestHead) -> Mapping[str, bytes | None]:
    expected: dict[str, bytes | None] = {name: parse_digest(name, value) for name, value in _stated(head)}
    for name in (head.header("x-amz-trailer") or "").split(","):
        algorithm = name.strip().lower().removeprefix(CHECKSUM)
        if name.strip() and algorithm not in ALGORITHMS:
            raise Invalid("the announced trailer is not a checksum that is offered", s3="NotImplemented")
        if name.strip():
            expected[algorithm] = None
    if head.header("x-amz-sdk-checksum-algorithm") is not None and not expected:
        raise Invalid("x-amz-sdk-checksum-algorithm names a checksum that is not sent", s3="InvalidRequest")
    return expected


class S3Body:
    """Decodes and verifies one body. After `finish` its length, digests and signatures were verified.

    After an error nothing of the body may be kept. `vouched` is how many decoded bytes may be kept if the connection
    breaks: all of an unsigned body, whole chunks of a body signed in chunks, none of a body signed by its hash.
    """

    def __init__(self, plan: BodyPlan, *, signer: ChunkSigner | None, limit: int) -> None:
        self._plan = plan
        self._limit = limit
        if plan.length is not None and plan.length > limit:
            raise _too_large(limit)
        self._decoder = (
            ChunkedDecoder(signer=signer if plan.signed else None, trailer=plan.trailer) if plan.chunked else None
        )
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._running: Mapping[str, Checksum] = {name: ALGORITHMS[name]() for name in plan.checksums}
        self.size = 0

    @property
    def announced(self) -> int | None:
        """How many decoded bytes were announced; None if that was not stated."""
        return self._plan.length

    def feed(self, data: bytes) -> list[bytes]:
        """Return the decoded bytes in `data`, as pieces."""
        pieces = [data] if self._decoder is None else self._decoder.feed(data)
        for piece in pieces:
            self.size += len(piece)
            if self.size > self._limit:
                raise _too_large(self._limit)
            if self._plan.length is not None and self.size > self._plan.length:
                raise Invalid("the body is longer than its announced length", s3="IncompleteBody")
            self._md5.update(piece)
            self._sha256.update(piece)
            for checksum in self._running.values():
                checksum.update(piece)
        return pieces

    @property
    def vouched(self) -> int:
        """How many decoded bytes may be kept if no more come."""
        if self._decoder is not None:
            return self._decoder.vouched
        return self.size if self._plan.sha256 is None else 0

    @property
    def md5(self) -> bytes:
        """The MD5 of the decoded bytes, which is the ETag of an object or part."""
        return self._md5.digest()

    @property
    def sha256(self) -> str:
        """The SHA-256 of the decoded bytes, in hex."""
        return self._sha256.hexdigest()

    @property
    def digests(self) -> Mapping[str, bytes]:
        """The checksums of the decoded bytes that the sender stated too, by algorithm."""
        return {name: each.digest() for name, each in self._running.items()}

    @property
    def answers(self) -> Mapping[str, str]:
        """The `digests` as headers of the answer."""
        return {CHECKSUM + name: base64.b64encode(digest).decode() for name, digest in self.digests.items()}

    def finish(self) -> None:
        """Raise Invalid unless the body has the stated length and digests."""
        if self._decoder is not None:
            self._decoder.finish()
        if self._plan.length is not None and self.size != self._plan.length:
            raise Invalid("the body is shorter than its announced length; nothing was kept", s3="IncompleteBody")
        if self._plan.sha256 is not None and not hmac.compare_digest(self._plan.sha256, self.sha256):
            raise Invalid("the body is not what was signed; nothing was kept", s3="XAmzContentSHA256Mismatch")
        if self._plan.md5 is not None and self._plan.md5 != self.md5:
            raise _bad("Content-MD5")
        for name, expected in self._plan.checksums.items():
            if (expected or self._trailed(name)) != self._running[name].digest():
                raise _bad(CHECKSUM + name)

    def _trailed(self, name: str) -> bytes:
        trailers = {} if self._decoder is None else self._decoder.trailers
        found = trailers.get(CHECKSUM + name)
        if found is None:
            raise Invalid("the announced checksum did not come; nothing was kept", s3="IncompleteBody")
        return parse_digest(name, found)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the body exceeds {limit} bytes, the most that is accepted here",
        hint="a recording, with all its parts, has at most server.max_recording_bytes",
    )


def _bad(name: str) -> Invalid:
    return Invalid(f"{name} is not that of the body that arrived; nothing was kept", s3="BadDigest")
