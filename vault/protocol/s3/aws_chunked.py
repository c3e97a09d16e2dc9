"""A decoder, without I/O, for `aws-chunked` bodies: signed or unsigned chunks, with or without a trailer.

After "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks" and "… Trailing
Headers" in the Amazon S3 API reference::

    length in hex [;chunk-signature=64 hex] CRLF bytes CRLF … 0 [;chunk-signature=…] CRLF [trailer lines] CRLF

minio-go ends trailer lines with LF, and sends one empty line too many: before their signature, or after an unsigned
trailer.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Final

from vault.errors import Forbidden, Invalid
from vault.protocol.s3.sigv4 import ChunkSigner

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
