"""Seals a recorder token's secret for the catalog (docs/format.md, "Token secrets").

The key comes from the keyring: neither the catalog nor a backup of it, with all that lies in one, opens the secret.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.crypto.derive import Purpose, subkey
from vault.errors import FormatError, Tampered
from vault.ids import TokenId, id_bytes
from vault.model import DataKey

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12


def seal_secret(key: DataKey, token: TokenId, secret: str, *, nonce: bytes) -> bytes:
    """Return `0x01 | nonce | AES-256-GCM(secret)`, bound to the token; `nonce` is 12 random bytes, fresh each time."""
    if len(nonce) != _NONCE_BYTES:
        raise ValueError(f"a nonce is {_NONCE_BYTES} bytes")
    return _VERSION + nonce + _aead(key).encrypt(nonce, secret.encode(), _aad(token))


def open_secret(key: DataKey, token: TokenId, sealed: bytes) -> str:
    """Return the secret. FormatError or Tampered."""
    if sealed[:1] != _VERSION:
        raise FormatError(f"the sealed secret of {token} has an unknown version")
    start = 1 + _NONCE_BYTES
    try:
        return _aead(key).decrypt(sealed[1:start], sealed[start:], _aad(token)).decode()
    except (InvalidTag, ValueError) as error:
        raise Tampered(f"the sealed secret of {token} failed authentication; nothing was returned") from error


def _aead(key: DataKey) -> AESGCM:
    return AESGCM(subkey(key, Purpose.TOKEN_SECRET))


def _aad(token: TokenId) -> bytes:
    return _VERSION + id_bytes(token)
