"""Subkeys of a data key: one label for each purpose, so no two uses ever share a key (docs/format.md, "Labels")."""

from __future__ import annotations

import enum

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vault.model import DataKey


class Purpose(enum.StrEnum):
    """What a subkey is for; the value is the HKDF label."""

    SEGMENT = "callvault/v1/segment"
    MANIFEST = "callvault/v1/manifest"
    JOURNAL = "callvault/v1/journal"
    FACTS = "callvault/v1/facts"
    NOTE = "callvault/v1/note"
    BLIND_INDEX = "callvault/v1/blind-index"
    BACKUP = "callvault/v1/backup"
    BACKUP_MANIFEST = "callvault/v1/backup-manifest"


def subkey(key: DataKey, purpose: Purpose, extra: bytes = b"") -> bytes:
    """Return 32 bytes: HKDF-Expand(SHA-512, key, label ‖ 0x00 ‖ extra), RFC 5869 section 2.3."""
    return HKDFExpand(algorithm=SHA512(), length=32, info=purpose.encode() + b"\0" + extra).derive(key.material)
