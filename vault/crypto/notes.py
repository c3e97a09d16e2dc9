"""Seals and opens the notes of an open recording, one row each (docs/format.md, "Notes")."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.crypto.derive import Purpose, subkey
from vault.errors import FormatError, Tampered, Truncated
from vault.format.names import check_recording
from vault.format.notes import Note, decode_note, encode_note
from vault.ids import RecordingId
from vault.model import DataKey

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


def seal_note(key: DataKey, recording: RecordingId, seq: int, note: Note, *, nonce: bytes) -> bytes:
    """Return `0x01 | nonce | AES-256-GCM(note)` under the audio's key, bound to the recording and the note's number.

    `nonce` is 12 random bytes, fresh for every call.
    """
    if len(nonce) != _NONCE_BYTES:
        raise ValueError(f"a nonce is {_NONCE_BYTES} bytes")
    sealed = AESGCM(subkey(key, Purpose.NOTE)).encrypt(nonce, encode_note(note), _context(recording, seq))
    return _VERSION + nonce + sealed


def open_note(key: DataKey, recording: RecordingId, seq: int, sealed: bytes) -> Note:
    """Return what `seal_note` sealed in this place. Raises FormatError, Truncated or Tampered."""
    if sealed[:1] != _VERSION:
        raise FormatError(f"note {seq} of {recording} has an unknown version")
    start = 1 + _NONCE_BYTES
    if len(sealed) < start + _TAG_BYTES:
        raise Truncated(f"note {seq} of {recording} is cut short")
    try:
        plain = AESGCM(subkey(key, Purpose.NOTE)).decrypt(sealed[1:start], sealed[start:], _context(recording, seq))
    except InvalidTag as error:
        raise Tampered(f"note {seq} of {recording} failed authentication; nothing of it was returned") from error
    return decode_note(plain)


def _context(recording: RecordingId, seq: int) -> bytes:
    return _VERSION + check_recording(recording).encode() + seq.to_bytes(4, "big")
