"""Values in the catalog: sealed ones, and the tokens by which it finds calls without storing numbers.

A sealed value is `0x01 | nonce | AES-256-GCM(plain)` under a key for its kind, bound to its row (docs/format.md,
"Notes", "Answers" and "Token secrets"). The keys come from the keyring, so neither the catalog alone nor a backup of it
can open them.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.crypto.derive import Purpose, subkey
from vault.errors import FormatError, Tampered, Truncated
from vault.format.names import check_recording
from vault.format.notes import Note, decode_note, encode_note
from vault.ids import RecordingId, TokenId, id_bytes
from vault.model import DataKey

# -- values of rows, sealed ---------------------------------------------------------------------------------------

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_LEAST_BYTES: Final = 1 + _NONCE_BYTES + 16
"""Version, nonce and tag."""


def seal_note(key: DataKey, recording: RecordingId, seq: int, note: Note, *, nonce: bytes) -> bytes:
    """Seal a note under the audio's key, bound to its recording and its number; `nonce` is 12 fresh random bytes."""
    return _seal(subkey(key, Purpose.NOTE), encode_note(note), _note_place(recording, seq), nonce)


def open_note(key: DataKey, recording: RecordingId, seq: int, sealed: bytes) -> Note:
    """Return the note that `seal_note` sealed. Raises FormatError, Truncated or Tampered."""
    what = f"note {seq} of {recording}"
    if sealed[:1] == _VERSION and len(sealed) < _LEAST_BYTES:
        raise Truncated(f"{what} is cut short")
    return decode_note(_open(subkey(key, Purpose.NOTE), sealed, _note_place(recording, seq), what))


def seal_answer(key: DataKey, token: TokenId, idempotency_key: str, answer: bytes, *, nonce: bytes) -> bytes:
    """Seal an answer for the token and its Idempotency-Key, of which the catalog stores only a hash."""
    return _seal(_answer_key(key, idempotency_key), answer, _VERSION + token.encode(), nonce)


def open_answer(key: DataKey, token: TokenId, idempotency_key: str, sealed: bytes) -> bytes:
    """Return the answer. Raises FormatError or Tampered."""
    return _open(_answer_key(key, idempotency_key), sealed, _VERSION + token.encode(), "a sealed answer")


def seal_secret(key: DataKey, token: TokenId, secret: str, *, nonce: bytes) -> bytes:
    """Seal a recorder's secret, bound to its token; `nonce` is 12 fresh random bytes."""
    return _seal(subkey(key, Purpose.TOKEN_SECRET), secret.encode(), _VERSION + id_bytes(token), nonce)


def open_secret(key: DataKey, token: TokenId, sealed: bytes) -> str:
    """Return the secret. Raises FormatError or Tampered."""
    place = _VERSION + id_bytes(token)
    plain = _open(subkey(key, Purpose.TOKEN_SECRET), sealed, place, f"the sealed secret of {token}")
    try:
        return plain.decode()
    except UnicodeDecodeError as error:
        raise Tampered(f"the sealed secret of {token} is not text") from error


def _note_place(recording: RecordingId, seq: int) -> bytes:
    return _VERSION + check_recording(recording).encode() + seq.to_bytes(4, "big")


def _answer_key(key: DataKey, idempotency_key: str) -> bytes:
    return subkey(key, Purpose.ANSWER, hashlib.sha512(idempotency_key.encode()).digest())


def _seal(key: bytes, plain: bytes, place: bytes, nonce: bytes) -> bytes:
    if len(nonce) != _NONCE_BYTES:
        raise ValueError(f"a nonce is {_NONCE_BYTES} bytes")
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, plain, place)


def _open(key: bytes, sealed: bytes, place: bytes, what: str) -> bytes:
    if sealed[:1] != _VERSION:
        raise FormatError(f"{what} has an unknown version")
    start = 1 + _NONCE_BYTES
    try:
        return AESGCM(key).decrypt(sealed[1:start], sealed[start:], place)
    except (InvalidTag, ValueError) as error:
        raise Tampered(f"{what} failed authentication; nothing of it was returned") from error


# -- blind tokens -------------------------------------------------------------------------------------------------
# The blind index: tokens by which the catalog finds calls without storing numbers (docs/format.md, "Blind index").
#
# Each metadata cohort has its own index key, at a leaf that no recording gets. The same value has unrelated tokens in
# different cohorts. Without the leaf a token cannot be linked to a value.

_TOKEN_BYTES: Final = 16


class Field(enum.StrEnum):
    """An indexed field. Its value goes into the key, so a number has different tokens as caller and as called."""

    CALL_KEY = "call_key"
    CALLER = "caller"
    CALLED = "called"
    OBJECT_KEY = "object_key"


def token(leaf: DataKey, field: Field, value: str) -> str:
    """Return the token of `value` in hex: the first 16 bytes of HMAC-SHA256(subkey of the field, value)."""
    key = subkey(leaf, Purpose.BLIND_INDEX, field.value.encode())
    return hmac.digest(key, value.encode(), "sha256")[:_TOKEN_BYTES].hex()
