"""What the providers that hold key bytes themselves share: the wrapping and its checks."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.errors import Invalid, Tampered
from vault.format.codec import pack
from vault.ports.time import Entropy

KEY_BYTES: Final = 32
TAG_MAX_BYTES: Final = 64
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


def wrap_bytes(root: bytes, version: str, key: bytes, aad: bytes, entropy: Entropy) -> bytes:
    """Return `nonce ‖ AES-256-GCM`, bound to the version and `aad`."""
    nonce = entropy(_NONCE_BYTES)
    return nonce + AESGCM(root).encrypt(nonce, key, pack([_LABEL, version, aad]))


def unwrap_bytes(root: bytes, version: str, blob: bytes, aad: bytes) -> bytes:
    """Return what `wrap_bytes` wrapped; Tampered."""
    try:
        return AESGCM(root).decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], pack([_LABEL, version, aad]))
    except (InvalidTag, ValueError) as error:
        raise Tampered(f"a blob does not open under root version {version}: its bytes or its place changed") from error
