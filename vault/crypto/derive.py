"""Subkeys of a data key. Each purpose has its own label, so no two uses share a key (docs/format.md, "Labels")."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vault.errors import Tampered
from vault.model import DataKey

_T = TypeVar("_T")


class Purpose(enum.StrEnum):
    """What a subkey is for; the value is the HKDF label."""

    SEGMENT = "callvault/v1/segment"
    MANIFEST = "callvault/v1/manifest"
    JOURNAL = "callvault/v1/journal"
    UPLOAD_PART = "callvault/v1/upload-part"
    FACTS = "callvault/v1/facts"
    NOTE = "callvault/v1/note"
    COMMITMENT = "callvault/v1/commitment"
    BLIND_INDEX = "callvault/v1/blind-index"
    BACKUP = "callvault/v1/backup"
    BACKUP_MANIFEST = "callvault/v1/backup-manifest"
    ANSWER = "callvault/v1/answer"
    TOKEN_SECRET = "callvault/v1/token-secret"  # noqa: S105  # a label, not a secret


def subkey(key: DataKey, purpose: Purpose, extra: bytes = b"") -> bytes:
    """Return 32 bytes: HKDF-Expand(SHA-512, key, label ‖ 0x00 ‖ extra), RFC 5869 section 2.3."""
    return HKDFExpand(algorithm=SHA512(), length=32, info=purpose.encode() + b"\0" + extra).derive(key.material)


def commitment(key: DataKey) -> bytes:
    """Return 32 bytes with which a key that is found later can be compared; they reveal nothing else about it.

    It is the SHA-256 of a subkey with its own label, so no other key can be derived from it.
    """
    return hashlib.sha256(subkey(key, Purpose.COMMITMENT)).digest()


def open_with_any(keys: Sequence[DataKey], opened: Callable[[DataKey], _T]) -> _T:
    """Return the result of `opened` with the first of `keys` for which it does not raise Tampered; else Tampered."""
    *others, last = keys
    for key in others:
        with suppress(Tampered):
            return opened(key)
    return opened(last)
