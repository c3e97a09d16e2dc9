"""What root-key providers share: checks, binding a blob to its place, and wrapping with key bytes."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.errors import Invalid, Tampered, Unavailable
from vault.format.codec import pack
from vault.ports.time import Entropy

KEY_BYTES: Final = 32
TAG_MAX_BYTES: Final = 72
"""The 64 bytes that the port promises, and 8 that a composite adds to tell its pairs apart."""
_NONCE_BYTES: Final = 12
_LABEL: Final = "callvault/v1/root-wrap"


def check_tag(tag: bytes) -> None:
    """Raise Invalid unless the tag fits every provider."""
    if len(tag) > TAG_MAX_BYTES:
        raise Invalid(f"a root version's tag is at most {TAG_MAX_BYTES} bytes")


def check_key(key: bytes) -> None:
    """Raise Invalid unless there are 32 bytes to wrap."""
    if len(key) != KEY_BYTES:
        raise Invalid(f"a root version wraps exactly {KEY_BYTES} bytes")


def foreign(version: str) -> Unavailable:
    """Return the error for a version of another store: its absence here says nothing about that store."""
    return Unavailable(f"root version {version[:80]} is not one of this store's; nothing is known to be lost")


def binding(version: str, aad: bytes) -> bytes:
    """Return the associated data that ties a blob to its root version and to `aad`."""
    return pack([_LABEL, version, aad])


def tampered(version: str) -> Tampered:
    """Return the error for a blob that a live version refuses to open."""
    return Tampered(f"a blob does not open under root version {version}: its bytes or its place changed")


def wrap_bytes(root: bytes, version: str, key: bytes, aad: bytes, entropy: Entropy) -> bytes:
    """Return `nonce ‖ AES-256-GCM`, bound to the version and `aad`."""
    nonce = entropy(_NONCE_BYTES)
    return nonce + AESGCM(root).encrypt(nonce, key, binding(version, aad))


def unwrap_bytes(root: bytes, version: str, blob: bytes, aad: bytes) -> bytes:
    """Return what `wrap_bytes` wrapped; Tampered."""
    try:
        return AESGCM(root).decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], binding(version, aad))
    except (InvalidTag, ValueError) as error:
        raise tampered(version) from error


def xor(left: bytes, right: bytes) -> bytes:
    """Return the XOR of two byte strings of equal length."""
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
