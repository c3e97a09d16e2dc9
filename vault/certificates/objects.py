"""The list of a recording's objects, and its Merkle root, which the certificate states.

See docs/certificates.md, "The list of objects".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Final

from vault.certificates.attested import ObjectFacts, StoredObject
from vault.certificates.tree import leaf_hash, root_of
from vault.errors import Invalid
from vault.ids import CertificateId

SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
NO_OBJECTS: Final = hashlib.sha256(b"").hexdigest()
"""The root of a tree without leaves (RFC 6962 section 2.1)."""
_MAX_INT: Final = (1 << 53) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObject:
    """One object of the list."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectList:
    """The objects that a certificate counts, in the order of their Merkle tree."""

    certificate_id: CertificateId
    objects: tuple[ListedObject, ...]

    def facts(self) -> ObjectFacts:
        """Return what a certificate states about this list; Invalid for a digest that is not SHA-256 in hex."""
        return object_facts([StoredObject(each.name, each.bytes, each.sha256) for each in self.objects])


def object_list(certificate: CertificateId, objects: Sequence[StoredObject]) -> ObjectList:
    """Return the list that is published beside the certificate."""
    found = tuple(ListedObject(name=each.name, bytes=each.bytes, sha256=each.sha256) for each in objects)
    return ObjectList(certificate_id=certificate, objects=found)


def object_facts(objects: Sequence[StoredObject]) -> ObjectFacts:
    """Return the number of objects, their bytes and their root; Invalid for a malformed digest or size."""
    if not objects:
        return ObjectFacts(count=0, bytes=0, root=NO_OBJECTS)
    total = sum(size for _, size, _ in objects)
    leaves = [leaf_hash(_leaf(name, size, sha256)) for name, size, sha256 in objects]
    return ObjectFacts(count=len(objects), bytes=total, root=root_of(leaves).hex())


def _leaf(name: str, size: int, sha256: str) -> bytes:
    """Return the RFC 8785 text of one object of the list."""
    if not SHA256.fullmatch(sha256):
        raise Invalid("the digest of an object is not SHA-256 in hex")
    if not 0 <= size <= _MAX_INT:
        raise Invalid("the size of an object is negative or beyond what JSON numbers carry")
    return f'{{"bytes":{size},"name":{encode_basestring(name)},"sha256":"{sha256}"}}'.encode()
