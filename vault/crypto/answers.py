"""Seals the answer of a request that may be repeated (docs/format.md, "Answers").

The key comes from the keyring and from the Idempotency-Key, of which the catalog has only the digest. So neither the
catalog nor the keyring nor both open an answer: whoever repeats the request does.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.crypto.derive import Purpose, subkey
from vault.errors import FormatError, Tampered
from vault.ids import TokenId
from vault.model import DataKey

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12


def seal_answer(key: DataKey, token: TokenId, told: str, answer: bytes, *, nonce: bytes) -> bytes:
    """Return `0x01 | nonce | AES-256-GCM(answer)` for the token and its Idempotency-Key `told`; a fresh `nonce`."""
    return _VERSION + nonce + _aead(key, told).encrypt(nonce, answer, _aad(token))


def open_answer(key: DataKey, token: TokenId, told: str, sealed: bytes) -> bytes:
    """Return the answer. FormatError or Tampered."""
    if sealed[:1] != _VERSION:
        raise FormatError("a sealed answer has an unknown version")
    start = 1 + _NONCE_BYTES
    try:
        return _aead(key, told).decrypt(sealed[1:start], sealed[start:], _aad(token))
    except (InvalidTag, ValueError) as error:
        raise Tampered("a sealed answer failed authentication; nothing was returned") from error


def _aead(key: DataKey, told: str) -> AESGCM:
    return AESGCM(subkey(key, Purpose.ANSWER, hashlib.sha512(told.encode()).digest()))


def _aad(token: TokenId) -> bytes:
    return _VERSION + token.encode()
