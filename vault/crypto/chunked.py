"""Cobblestone-256 of c2sp.org/chunked-encryption (v1): SHA-512, AES-256-GCM, 16 KiB chunks, random access.

A message is `salt(24) | commitment(32) | chunk 0 | chunk 1 | …`. A chunk carries 16384 plaintext bytes. Only the last
is shorter, and it may be empty. There is no other end mark, so a message whose last chunk is full is truncated. Chunk k
starts at byte 56 + 16400 k. The key and the base nonce are derived from the input key, the salt and the context.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vault.errors import Tampered, Truncated

KEY_BYTES: Final = 32
SALT_BYTES: Final = 24
COMMITMENT_BYTES: Final = 32
PREFIX_BYTES: Final = SALT_BYTES + COMMITMENT_BYTES
CHUNK_BYTES: Final = 16_384
TAG_BYTES: Final = 16
STRIDE_BYTES: Final = CHUNK_BYTES + TAG_BYTES
MAX_CHUNKS: Final = 1 << 38

_NONCE_BYTES = 12
_INFO = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"

Bytes: TypeAlias = bytes | bytearray | memoryview
"""Byte buffers: a memoryview here is one-dimensional and of format "B"."""
Pieces: TypeAlias = Bytes | Sequence[Bytes]
"""Plaintext as one buffer, or as buffers in order."""


def sealed_length(plaintext_bytes: int) -> int:
    """Return the length in bytes of a message that carries `plaintext_bytes`."""
    return PREFIX_BYTES + plaintext_bytes + TAG_BYTES * (plaintext_bytes // CHUNK_BYTES + 1)


def plaintext_length(message_bytes: int) -> int:
    """Return how many plaintext bytes a message of that length carries; Truncated if no message has that length."""
    chunks, tail = divmod(message_bytes - PREFIX_BYTES, STRIDE_BYTES)
    if message_bytes < PREFIX_BYTES or tail < TAG_BYTES:
        raise Truncated(f"no sealed message is {message_bytes} bytes long: its end is missing")
    return chunks * CHUNK_BYTES + tail - TAG_BYTES


def total_length(pieces: Pieces) -> int:
    """Return the total number of bytes of the pieces."""
    return sum(map(len, _sequence(pieces)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWindow:
    """The chunks that hold a plaintext range: bytes `[start, end)` of the message.

    The range is `length` plaintext bytes after the first `skip` of those chunks. `last` tells whether the final chunk
    of the message is among them.
    """

    first_chunk: int
    start: int
    end: int
    skip: int
    length: int
    last: bool


def chunk_window(start: int, end: int, plaintext_bytes: int) -> ChunkWindow:
    """Return the chunks that hold plaintext `[start, end)` of a message with `plaintext_bytes` of plaintext.

    An empty range needs no chunks. ValueError unless `0 <= start <= end <= plaintext_bytes`.
    """
    if not 0 <= start <= end <= plaintext_bytes:
        raise ValueError(f"bytes {start} to {end} are not inside a message of {plaintext_bytes}")
    first = start // CHUNK_BYTES
    begin = PREFIX_BYTES + first * STRIDE_BYTES
    if start == end:
        return ChunkWindow(first_chunk=first, start=begin, end=begin, skip=0, length=0, last=False)
    final = (end - 1) // CHUNK_BYTES
    last = final == plaintext_bytes // CHUNK_BYTES
    stop = sealed_length(plaintext_bytes) if last else PREFIX_BYTES + (final + 1) * STRIDE_BYTES
    return ChunkWindow(
        first_chunk=first, start=begin, end=stop, skip=start - first * CHUNK_BYTES, length=end - start, last=last
    )


@dataclass(frozen=True, slots=True)
class _Derived:
    aead: AESGCM
    base_nonce: int = field(repr=False)
    commitment: bytes


def commitment_info(salt: bytes, context: bytes) -> bytes:
    """Return the HKDF `info` from which a message's key, base nonce and commitment are derived."""
    return _INFO + salt + context


def _derive(input_key: bytes, salt: bytes, context: bytes) -> _Derived:
    if len(input_key) != KEY_BYTES or len(salt) != SALT_BYTES:
        raise ValueError(f"the input key is {KEY_BYTES} bytes and the salt {SALT_BYTES}")
    length = KEY_BYTES + _NONCE_BYTES + COMMITMENT_BYTES
    output = HKDFExpand(algorithm=SHA512(), length=length, info=commitment_info(salt, context)).derive(input_key)
    nonce_end = KEY_BYTES + _NONCE_BYTES
    return _Derived(
        aead=AESGCM(output[:KEY_BYTES]),
        base_nonce=int.from_bytes(output[KEY_BYTES:nonce_end], "big"),
        commitment=output[nonce_end:],
    )


def _committed(input_key: bytes, context: bytes, prefix: Bytes) -> _Derived:
    if len(prefix) < PREFIX_BYTES:
        raise Truncated(f"a sealed message ends inside its first {PREFIX_BYTES} bytes")
    derived = _derive(input_key, bytes(prefix[:SALT_BYTES]), context)
    if not hmac.compare_digest(derived.commitment, bytes(prefix[SALT_BYTES:PREFIX_BYTES])):
        raise Tampered("the key commitment does not match: another key, another place, or a changed beginning")
    return derived


def seal(input_key: bytes, salt: bytes, context: bytes, pieces: Pieces, *, head: bytes = b"") -> bytearray:
    """Return `head` followed by the message that carries the concatenated `pieces`, in one buffer.

    `head` is not encrypted; passing it here saves a copy of the message. A salt must not repeat for an input key: a
    repeated pair of key and nonce reveals both plaintexts. ValueError for a wrong key or salt length.
    """
    derived = _derive(input_key, salt, context)
    out = bytearray(len(head) + sealed_length(total_length(pieces)))
    at = len(head) + PREFIX_BYTES
    out[:at] = head + salt + derived.commitment
    target = memoryview(out)
    encrypt_into, base = derived.aead.encrypt_into, derived.base_nonce
    for number, chunk in enumerate(_chunks(pieces)):
        nonce = (base ^ number).to_bytes(_NONCE_BYTES, "big")
        at += encrypt_into(nonce, chunk, None, target[at : at + len(chunk) + TAG_BYTES])
    return out


class Sealer:
    """Seals one message while its plaintext arrives: `prefix`, then the results of `update`, then that of `finish`.

    A salt must not repeat for an input key: see `seal`.
    """

    __slots__ = ("_derived", "_held", "_number", "prefix")

    def __init__(self, input_key: bytes, salt: bytes, context: bytes) -> None:
        self._derived = _derive(input_key, salt, context)
        self._held = b""
        self._number = 0
        self.prefix = salt + self._derived.commitment

    def update(self, piece: Bytes) -> bytes:
        """Add plaintext and return the sealed chunks that are complete with it."""
        *full, self._held = map(bytes, _chunks([self._held, piece]))
        return b"".join(map(self._seal, full))

    def finish(self) -> bytes:
        """Return the last sealed chunk; no other call may follow."""
        return self._seal(self._held)

    def _seal(self, chunk: bytes) -> bytes:
        nonce = (self._derived.base_nonce ^ self._number).to_bytes(_NONCE_BYTES, "big")
        self._number += 1
        return self._derived.aead.encrypt(nonce, chunk, None)


def open_message(input_key: bytes, context: bytes, message: Bytes) -> bytes:
    """Return the whole plaintext of a message. Raises Tampered or Truncated, and then returns none of it."""
    plaintext_bytes = plaintext_length(len(message))
    derived = _committed(input_key, context, message)
    return _open_run(derived, 0, memoryview(message)[PREFIX_BYTES:], skip=0, length=plaintext_bytes)


class Opener:
    """Opens single chunks or windows of one message, given its 56-byte prefix.

    Construction checks the key commitment, in constant time, before anything is decrypted: Tampered for another key,
    another context or a changed prefix, Truncated if the prefix is short. A range without the last chunk does not prove
    the message's length: take that from an authenticated source (a manifest), or open the last chunk.
    """

    __slots__ = ("_derived",)

    def __init__(self, input_key: bytes, context: bytes, prefix: Bytes) -> None:
        self._derived = _committed(input_key, context, prefix)

    def chunk(self, number: int, ciphertext: Bytes, *, last: bool) -> bytes:
        """Return the plaintext of one chunk; Truncated if its length is not possible for a last or another chunk."""
        fits = TAG_BYTES <= len(ciphertext) < STRIDE_BYTES if last else len(ciphertext) == STRIDE_BYTES
        if not fits or not 0 <= number < MAX_CHUNKS:
            raise Truncated(f"chunk {number} cannot be {len(ciphertext)} bytes long")
        return _open_run(self._derived, number, memoryview(ciphertext), skip=0, length=len(ciphertext) - TAG_BYTES)

    def window(self, window: ChunkWindow, ciphertext: Bytes) -> bytes:
        """Return the plaintext range of `window`, given message bytes `[window.start, window.end)`.

        Truncated if there are fewer or more bytes, Tampered if a chunk fails authentication.
        """
        expected = window.end - window.start
        if len(ciphertext) != expected:
            raise Truncated(f"{len(ciphertext)} bytes were read where {expected} are needed")
        return _open_run(
            self._derived, window.first_chunk, memoryview(ciphertext), skip=window.skip, length=window.length
        )


def _open_run(derived: _Derived, number: int, body: memoryview, *, skip: int, length: int) -> bytes:
    """Open consecutive chunks of checked lengths and return `[skip, skip + length)` of their plaintext."""
    plain: list[bytes] = []
    decrypt, base = derived.aead.decrypt, derived.base_nonce
    for at in range(0, len(body), STRIDE_BYTES):
        try:
            nonce = (base ^ number).to_bytes(_NONCE_BYTES, "big")
            plain.append(decrypt(nonce, body[at : at + STRIDE_BYTES], None))
        except InvalidTag as error:
            raise Tampered(f"chunk {number} failed authentication", chunk=number) from error
        number += 1
    if skip:
        plain[0] = plain[0][skip:]
    if surplus := sum(map(len, plain)) - length:
        plain[-1] = plain[-1][:-surplus]
    return b"".join(plain)


def _sequence(pieces: Pieces) -> Sequence[Bytes]:
    return [pieces] if isinstance(pieces, bytes | bytearray | memoryview) else pieces


def _chunks(pieces: Pieces) -> Iterator[Bytes]:
    """Yield full chunks, then a shorter one that may be empty.

    Only chunks that span pieces are copied. Joining all pieces first would need a second buffer as large as the
    segment, which takes longer than the encryption.
    """
    pending: list[Bytes] = []
    held = 0
    for piece in _sequence(pieces):
        if held + len(piece) < CHUNK_BYTES:
            pending.append(piece)
            held += len(piece)
            continue
        view = memoryview(piece)
        at = CHUNK_BYTES - held
        yield b"".join([*pending, view[:at]]) if held else view[:at]
        while len(view) - at >= CHUNK_BYTES:
            yield view[at : at + CHUNK_BYTES]
            at += CHUNK_BYTES
        pending, held = [view[at:]], len(view) - at
    yield b"".join(pending) if len(pending) != 1 else pending[0]
