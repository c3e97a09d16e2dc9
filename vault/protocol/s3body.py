"""One S3 request body while it arrives: decoded, counted, and compared with everything its sender said about it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vault.errors import Invalid, TooLarge
from vault.protocol.awschunked import ChunkedDecoder
from vault.protocol.checksums import ALGORITHMS, Checksum
from vault.protocol.sigv4 import UNSIGNED_PAYLOAD, ChunkSigner, Claim, RequestHead

CHECKSUM: Final = "x-amz-checksum-"

_SIGNED_CHUNKS: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_UNSIGNED_TRAILER: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_TRAILER: Final = "-TRAILER"
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LENGTH: Final = re.compile(r"\d{1,13}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyPlan:
    """What the head of a request says about its body.

    `length` counts decoded bytes, None if it is not said; `checksums` are digests by algorithm, None where the trailer
    will bring it.
    """

    length: int | None
    sha256: str | None = None
    chunked: bool = False
    signed: bool = False
    trailer: bool = False
    md5: bytes | None = None
    checksums: Mapping[str, bytes | None] = field(default_factory=dict)


def plan_body(head: RequestHead, claim: Claim) -> BodyPlan:
    """Return what to expect; Invalid for what is contradictory or not offered."""
    mode = claim.payload
    chunked = mode.startswith("STREAMING-")
    if chunked and mode.removesuffix(_TRAILER) != _SIGNED_CHUNKS and mode != _UNSIGNED_TRAILER:
        raise Invalid("this x-amz-content-sha256 is not offered", s3="NotImplemented")
    if not chunked and mode != UNSIGNED_PAYLOAD and not _SHA256.fullmatch(mode):
        raise Invalid("x-amz-content-sha256 is neither a hash nor a known word", s3="InvalidArgument")
    length = head.header("x-amz-decoded-content-length" if chunked else "content-length")
    if length is not None and not _LENGTH.fullmatch(length):
        raise Invalid("the body's length is not a byte count", s3="InvalidArgument")
    if chunked and length is None:
        raise Invalid("x-amz-decoded-content-length is missing", s3="MissingContentLength")
    return BodyPlan(
        length=None if length is None else int(length),
        sha256=mode if _SHA256.fullmatch(mode) else None,
        chunked=chunked,
        signed=mode.startswith(_SIGNED_CHUNKS),
        trailer=mode.endswith(_TRAILER),
        md5=_digest(head.header("content-md5"), 16),
        checksums=_checksums(head),
    )


def stated_checksums(head: RequestHead) -> Mapping[str, bytes]:
    """Return the digests that the head states, by algorithm; Invalid for one that is malformed.

    For CompleteMultipartUpload they are of the whole object; those of its parts' checksums (`…-N`) are not offered.
    """
    stated = {}
    for name, value in head.headers:
        algorithm = name.lower().removeprefix(CHECKSUM)
        if algorithm in ALGORITHMS and name.lower().startswith(CHECKSUM):
            digest = _digest(value, len(ALGORITHMS[algorithm]().digest()))
            assert digest is not None
            stated[algorithm] = digest
    return stated


def _checksums(head: RequestHead) -> Mapping[str, bytes | None]:
    wanted: dict[str, bytes | None] = {**stated_checksums(head)}
    for name in (head.header("x-amz-trailer") or "").split(","):
        algorithm = name.strip().lower().removeprefix(CHECKSUM)
        if name.strip() and algorithm not in ALGORITHMS:
            raise Invalid("the announced trailer is not a checksum that is offered", s3="NotImplemented")
        if name.strip():
            wanted[algorithm] = None
    return wanted


def _digest(value: str | None, size: int) -> bytes | None:
    if value is None:
        return None
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("a checksum is not base64", s3="InvalidDigest") from error
    if len(digest) != size:
        raise Invalid("a checksum has the wrong length", s3="InvalidDigest")
    return digest


class S3Body:
    """Feed it what arrives and keep what it returns; after `finish` every promise about the body was found true.

    Any error means that nothing of the body may be kept. `vouched` says how many decoded bytes are known to be the
    sender's if the connection breaks: all of an unsigned body, whole chunks of one signed in chunks, none of one that
    is signed by its hash.
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
        """How many decoded bytes will come; None if that was not said."""
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
        """Bytes that are the sender's, should no more come."""
        if self._decoder is not None:
            return self._decoder.vouched
        return self.size if self._plan.sha256 is None else 0

    @property
    def md5(self) -> bytes:
        """MD5 of the decoded bytes: the ETag of an object or part."""
        return self._md5.digest()

    @property
    def sha256(self) -> str:
        """SHA-256 of the decoded bytes, in hex."""
        return self._sha256.hexdigest()

    @property
    def answers(self) -> Mapping[str, str]:
        """The checksums that were compared, as headers for the answer."""
        return {CHECKSUM + name: base64.b64encode(each.digest()).decode() for name, each in self._running.items()}

    def finish(self) -> None:
        """Compare everything; Invalid if anything differs."""
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
        found = _digest(trailers.get(CHECKSUM + name), len(self._running[name].digest()))
        if found is None:
            raise Invalid("the announced checksum did not come; nothing was kept", s3="IncompleteBody")
        return found


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the body exceeds the {limit} bytes that are taken here",
        hint="a recording, with all its parts, has at most server.max_recording_bytes",
    )


def _bad(name: str) -> Invalid:
    return Invalid(f"{name} is not that of the body that arrived; nothing was kept", s3="BadDigest")
