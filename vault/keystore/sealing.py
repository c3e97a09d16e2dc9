"""Seals the keyring's files: with one epoch secret, and keys derived from it by label (docs/format.md, "Keyring").

An index key derives from the epoch secret and a fresh salt. A page key is random for each page written, and only the
index has it. So without the epoch secret neither an index nor a page of that epoch opens, while an unchanged page may
be carried into the next epoch as it is.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vault.errors import FormatError, Tampered
from vault.format.codec import pack
from vault.format.keyring import (
    Head,
    Index,
    PageRecord,
    decode_index,
    decode_page,
    encode_index,
    encode_page,
    head_body,
)
from vault.ids import TenantId

SECRET_BYTES: Final = 32
SALT_BYTES: Final = 32
_SECRET: Final = "callvault/v1/keyring-secret"  # noqa: S105 - a label, not a password
_HEAD: Final = b"callvault/v1/keyring-head"
_INDEX: Final = "callvault/v1/keyring-index"
_PAGE: Final = "callvault/v1/keyring-page"
# The nonce may be constant: every key seals one message, as an index key has a salt and a page key is random.
_NONCE: Final = bytes(12)
_TAG: Final = b"callvault/keyring\0"


def version_tag(keyring: bytes, epoch: int) -> bytes:
    """Return the tag that a keyring's root version for `epoch` carries at the provider."""
    return _TAG + keyring + epoch.to_bytes(8, "big")


def owns(keyring: bytes, tag: bytes) -> bool:
    """Tell whether a root version with this tag belongs to `keyring`: only those are ever destroyed."""
    return tag.startswith(_TAG + keyring) and len(tag) == len(_TAG) + len(keyring) + 8


def wrap_aad(keyring: bytes, epoch: int) -> bytes:
    """Return the associated data that ties a wrapped epoch secret to its keyring and epoch."""
    return pack([_SECRET, keyring, epoch])


def head_mac(secret: bytes, head: Head) -> bytes:
    """Return the MAC of a head: nobody without the epoch secret can point it at another index."""
    return hmac.digest(_expand(secret, _HEAD), head_body(head), hashlib.sha256)


def check_head(secret: bytes, head: Head, mac: bytes) -> None:
    """Raise Tampered unless `mac` is the head's."""
    if not hmac.compare_digest(head_mac(secret, head), mac):
        raise Tampered("the keyring's head failed authentication; it was not used")


def seal_index(secret: bytes, index: Index, salt: bytes) -> bytes:
    """Return `salt ‖ AES-256-GCM`, bound to keyring, epoch and revision; `salt` is 32 fresh bytes."""
    key = _expand(secret, _INDEX.encode() + b"\0" + salt)
    return salt + AESGCM(key).encrypt(_NONCE, encode_index(index), _index_aad(index))


def open_index(secret: bytes, head: Head, sealed: bytes) -> Index:
    """Return the index that `head` names; Tampered if it was sealed for another place, FormatError."""
    key = _expand(secret, _INDEX.encode() + b"\0" + sealed[:SALT_BYTES])
    index = decode_index(_open(key, sealed[SALT_BYTES:], _index_aad(head), "index"))
    if (index.keyring, index.fence, index.epoch, index.revision) != (head.keyring, *head.rank):
        raise FormatError("an index does not name the place of its head")
    return index


def _index_aad(place: Head | Index) -> bytes:
    return pack([_INDEX, place.keyring, place.epoch, place.revision])


def seal_page(key: bytes, keyring: bytes, page: PageRecord) -> bytes:
    """Return the sealed page; `key` must never have sealed anything."""
    return AESGCM(key).encrypt(_NONCE, encode_page(page), pack([_PAGE, keyring, page.tenant]))


def open_page(key: bytes, keyring: bytes, tenant: TenantId, sealed: bytes) -> PageRecord:
    """Return the page of `tenant`; Tampered if it was sealed for another place, FormatError."""
    page = decode_page(_open(key, sealed, pack([_PAGE, keyring, tenant]), "page"))
    if page.tenant != tenant:
        raise FormatError("a page names another tenant than its index")
    return page


def _expand(secret: bytes, info: bytes) -> bytes:
    return HKDFExpand(algorithm=SHA512(), length=32, info=info).derive(secret)


def _open(key: bytes, sealed: bytes, aad: bytes, what: str) -> bytes:
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, aad)
    except (InvalidTag, ValueError) as error:
        raise Tampered(f"a keyring {what} failed authentication; nothing of it was read") from error
