"""Seals and opens journal records: AES-256-GCM, one key per file and handle (docs/format.md, "Journal").

The nonce is the record's `seq` as 12 bytes big-endian and the associated data its 17-byte prefix. The key depends on
the file's random salt and on the handle, and `seq` only increases, so a pair of key and nonce does not repeat.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.crypto.derive import Purpose, subkey
from vault.errors import Tampered
from vault.format.journal import DATA, OPEN, TAG_BYTES, pack_prefix
from vault.model import DataKey

_NONCE_BYTES: Final = 12
_ZERO_NONCE: Final = bytes(_NONCE_BYTES)


class RecordKey:
    """The key of one recording in one journal file. Several threads may open; only one may seal."""

    __slots__ = ("_cipher", "handle")

    def __init__(self, key: DataKey, *, salt: bytes, handle: int) -> None:
        self.handle = handle
        self._cipher = AESGCM(subkey(key, Purpose.JOURNAL, salt + handle.to_bytes(4, "big")))

    def seal(self, kind: int, seq: int, plaintext: bytes | bytearray | memoryview, size: int) -> tuple[bytes, bytes]:
        """Return prefix and body of record `seq`, which must not repeat; `size` is the plaintext's length in bytes."""
        prefix = pack_prefix(size + TAG_BYTES, kind, self.handle, seq)
        return prefix, self._cipher.encrypt(seq.to_bytes(_NONCE_BYTES, "big"), plaintext, prefix)

    def open(self, kind: int, seq: int, body: bytes | memoryview) -> bytes:
        """Return the plaintext of record `seq`; Tampered if the body is not what was sealed for this kind and `seq`."""
        prefix = pack_prefix(len(body), kind, self.handle, seq)
        try:
            return self._cipher.decrypt(seq.to_bytes(_NONCE_BYTES, "big"), body, prefix)
        except InvalidTag as error:
            raise Tampered("a journal record failed authentication; no audio was returned") from error

    def open_data(self, seq: int, body: bytes | memoryview) -> bytes:
        """Return the audio of DATA record `seq`; Tampered."""
        return self.open(DATA, seq, body)

    def seal_opening(self, opening: bytes) -> tuple[bytes, bytes]:
        """Return prefix and body of the OPEN record: the opening in clear and a tag over prefix and opening."""
        prefix = pack_prefix(len(opening) + TAG_BYTES, OPEN, self.handle, 0)
        return prefix, opening + self._cipher.encrypt(_ZERO_NONCE, b"", prefix + opening)

    def check_opening(self, body: bytes) -> None:
        """Check the tag of an OPEN record's body; Tampered."""
        opening, tag = body[:-TAG_BYTES], body[-TAG_BYTES:]
        prefix = pack_prefix(len(body), OPEN, self.handle, 0)
        try:
            self._cipher.decrypt(_ZERO_NONCE, tag, prefix + opening)
        except InvalidTag as error:
            raise Tampered("a journal opening failed authentication") from error
