"""Certificates issued together: Merkle trees over objects and documents, and one signed statement over a batch's root.

See docs/certificates.md, "Batches". The leaf of a certificate is its RFC 8785 document, the same bytes that its
own JWS signs, so that a transparency log can include the leaves unchanged.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from json.encoder import encode_basestring
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class that the library spells small
from typing import Any, Final, NamedTuple

import rfc8785

from vault.certificates.attested import ObjectFacts, StoredObject
from vault.certificates.canonical import canonical_json, from_json
from vault.certificates.statements import Rule, naming_rule
from vault.crypto.signing import VerifyKey, decode_base64url, encode_base64url, protected_header, verify_compact
from vault.errors import FormatError, Invalid, Tampered
from vault.format import codec
from vault.format.names import tail_below
from vault.ids import CertificateId, TenantId, id_bytes
from vault.model import Part

# -- Merkle trees (RFC 6962) --------------------------------------------------------------------------------------
# Merkle trees over certificates: RFC 6962 section 2.1, proofs verified as in RFC 9162 section 2.1.3.2.
#
# All hashes are 32 bytes of SHA-256; a leaf's is over `0x00 ‖ document`, an inner node's over `0x01 ‖ left ‖ right`.

HASH_BYTES: Final = 32
MAX_PATH: Final = 53
"""The greatest number of hashes in an inclusion proof: no tree whose size JSON can carry is higher."""

_sha256 = hashlib.sha256


def leaf_hash(document: bytes) -> bytes:
    """Return the hash of a leaf."""
    return _sha256(b"\x00" + document).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the tree's root from its leaf hashes; FormatError if there are none."""
    if not leaves:
        raise FormatError("a batch has at least one certificate")
    level = leaves
    while len(level) > 1:
        level = _above(level)
    return level[0]


class Tree:
    """A tree over leaf hashes that is kept in memory, to make many inclusion proofs."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._all = _levels(leaves)

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._all[0])

    @property
    def root(self) -> bytes:
        """The root hash."""
        return self._all[-1][0]

    def path(self, index: int) -> tuple[bytes, ...]:
        """Return the inclusion proof of leaf `index`: the sibling hashes from the leaf up to the root."""
        if not 0 <= index < self.size:
            raise FormatError(f"a tree of {self.size} leaves has no leaf {index}")
        found: list[bytes] = []
        for level in self._all[:-1]:
            if (beside := index ^ 1) < len(level):
                found.append(level[beside])
            index >>= 1
        return tuple(found)


def verify_inclusion(leaf: bytes, *, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raise Tampered unless `leaf` is the hash of leaf `index` in the tree of that size and root."""
    place, last, found = index, size - 1, leaf
    if not 0 <= place <= last:
        raise Tampered(f"a tree of {size} certificates has no place {index}")
    for sibling in path:
        if not last:
            raise Tampered("the inclusion proof is longer than the tree is high")
        if place & 1 or place == last:
            found = _node(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = _node(found, sibling)
        place, last = place >> 1, last >> 1
    if last or found != root:
        raise Tampered("the inclusion proof does not lead from this certificate to the signed root")


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    if not leaves:
        raise FormatError("a batch has at least one certificate")
    levels = [list(leaves)]
    while len(level := levels[-1]) > 1:
        levels.append(_above(level))
    return levels


def _above(level: Sequence[bytes]) -> list[bytes]:
    above = [_sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
    # The last of an odd number moves up unchanged, because section 2.1 splits at the largest power of two.
    return above if len(level) % 2 == 0 else [*above, level[-1]]


def _node(left: bytes, right: bytes) -> bytes:
    return _sha256(b"\x01" + left + right).digest()


# -- the list of objects that a certificate counts ----------------------------------------------------------------
# The list of a recording's objects, and its Merkle root, which the certificate states.
#
# See docs/certificates.md, "The list of objects".

SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
NO_OBJECTS: Final = hashlib.sha256(b"").hexdigest()
"""The root of a tree without leaves (RFC 6962 section 2.1)."""
_MAX_INT: Final = (1 << 53) - 1
_DIGITS: Final = 64


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
    count, total, root = counted(objects)
    return ObjectFacts(count=count, bytes=total, root=root.hex())


def counted(objects: Collection[StoredObject]) -> tuple[int, int, bytes]:
    """Return what `object_facts` does, as a tuple: a sweep makes a million."""
    if not objects:
        return 0, 0, bytes.fromhex(NO_OBJECTS)
    leaves = [leaf_hash(_leaf(name, size, sha256)) for name, size, sha256 in objects]
    return len(objects), sum([size for _, size, _ in objects]), root_of(leaves)


def counted_below(prefix: str, objects: str) -> tuple[int, int, bytes]:
    """Return what `counted` does of the objects that a catalog lists in one text, all below one prefix.

    Number, attempt, bytes and SHA-256, with colons between them, and spaces between objects. Invalid for a malformed
    digest or size.
    """
    total, leaves = 0, []
    for each in objects.split(" "):
        number, attempt, size, sha256 = each.split(":")
        if len(sha256) != _DIGITS or size[0] == "-":
            raise Invalid("the digest or the size of an object is not one")
        total += int(size)
        # Below a prefix of this vault no name has a character that JSON escapes.
        name = prefix + tail_below(number, attempt)
        leaves.append(_sha256(f'\0{{"bytes":{size},"name":"{name}","sha256":"{sha256}"}}'.encode()).digest())
    return len(leaves), total, root_of(leaves)


def _leaf(name: str, size: int, sha256: str) -> bytes:
    """Return the RFC 8785 text of one object of the list."""
    if not SHA256.fullmatch(sha256):
        raise Invalid("the digest of an object is not SHA-256 in hex")
    if not 0 <= size <= _MAX_INT:
        raise Invalid("the size of an object is negative or beyond what JSON numbers carry")
    return f'{{"bytes":{size},"name":{encode_basestring(name)},"sha256":"{sha256}"}}'.encode()


# -- the signed statement of a batch ------------------------------------------------------------------------------

SCHEMA: Final = "callvault/certificate-batch/v1"
TYPE: Final = "callvault-certificate-batch+jws"
HEADERS: Final = frozenset({"batch", "batch_index", "batch_path"})
"""The members that the protected header of a certificate in a batch has. They come together or not at all."""

_STATEMENT_HEADER: Final = frozenset({"alg", "kid", "typ"})
_ROOT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_HEAD: Final = Struct(">II")
_PLACE: Final = Struct(">HH")
_DROPPED: Final = 0xFFFF
ID_BYTES: Final = 16
"""An entry begins with the ids of its certificate, of the recording, and of the superseded certificate, if any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatement:
    """What is signed once for all certificates of a batch: their number, and the Merkle root over them (hex)."""

    schema: str = SCHEMA
    batch_id: str
    issued_at: datetime
    size: int
    root: str

    def __post_init__(self) -> None:
        id_bytes(self.batch_id)
        if (
            self.schema != SCHEMA
            or not self.batch_id.startswith("bat_")
            or not self.size
            or not _ROOT.fullmatch(self.root)
        ):
            raise Invalid("the batch statement contradicts itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A certificate's place in a signed batch: the statement as a compact JWS, the leaf's index and its path."""

    statement: str
    index: int
    path: tuple[bytes, ...]

    def headers(self) -> dict[str, str]:
        """Return the members of a JWS header that state this place."""
        return {
            "batch": self.statement,
            "batch_index": str(self.index),
            "batch_path": encode_base64url(b"".join(self.path)),
        }


def statement_payload(statement: BatchStatement) -> bytes:
    """Return the bytes of the statement that are signed."""
    return canonical_json(statement)


def membership_of(header: Mapping[str, Any]) -> Membership | None:
    """Return the membership that a protected header states; None without one, FormatError for an incomplete one."""
    found = HEADERS & header.keys()
    if not found:
        return None
    if found != HEADERS or not _INDEX.fullmatch(header["batch_index"]):
        raise FormatError("the certificate's place in its batch is incomplete")
    path = decode_base64url(header["batch_path"])
    if len(path) % HASH_BYTES or len(path) > MAX_PATH * HASH_BYTES:
        raise FormatError("the certificate's inclusion proof is not a list of hashes")
    return Membership(
        statement=header["batch"],
        index=int(header["batch_index"]),
        path=tuple(path[at : at + HASH_BYTES] for at in range(0, len(path), HASH_BYTES)),
    )


def verify_statement(jws: str, key: VerifyKey) -> BatchStatement:
    """Return the statement that `key` signed.

    Tampered if the signature is not by `key`, FormatError unless it is the canonical form of a statement,
    IntegrityError if the statement contradicts itself.
    """
    with naming_rule(Rule.BATCH_STATEMENT):
        header = protected_header(jws)
        if header.get("typ") != TYPE or header.keys() != _STATEMENT_HEADER:
            raise FormatError("a signed document, but not the statement of a certificate batch")
        payload = verify_compact(jws, key)
        try:
            found = json.loads(payload)
            unique = rfc8785.dumps(found) == payload
        except (ValueError, RecursionError) as error:
            raise FormatError("the batch statement is not canonical JSON") from error
        if not unique:
            raise FormatError("the batch statement is JSON, but not in canonical form")
    with naming_rule(Rule.BATCH_RULES):
        statement = from_json(BatchStatement, found)
        if canonical_json(statement) != payload:
            raise FormatError("a member of the batch statement is not written as statements write it")
    return statement


def verify_membership(document: bytes, membership: Membership, key: VerifyKey) -> BatchStatement:
    """Check that `document` is a leaf of a batch that `key` signed, and return the batch's statement.

    Raises what `verify_statement` raises, and Tampered if the document is not that leaf.
    """
    statement = verify_statement(membership.statement, key)
    with naming_rule(Rule.BATCH_PATH):
        verify_inclusion(
            leaf_hash(document),
            index=membership.index,
            size=statement.size,
            path=membership.path,
            root=bytes.fromhex(statement.root),
        )
    return statement


class Group(NamedTuple):
    """What some certificates of a batch share: the tenant, the parts, the form, and whether they supersede others."""

    tenant: TenantId
    parts: tuple[Part, ...]
    form: bytes
    supersede: bool


class Entries(NamedTuple):
    """The entries of a batch, in the order of its leaves: the number of a group and the entry of each.

    None is at the place of a certificate that was signed but not issued, because there was one already.
    """

    groups: Sequence[Group]
    places: Sequence[tuple[int, bytes] | None]


def pack_entries(entries: Entries) -> bytes:
    """Return the entries of a batch as one value. Invalid if there are too many.

    docs/format.md, "Certificates in the catalog", has its bytes.
    """
    groups = codec.pack([[each.tenant, [*each.parts], each.form, each.supersede] for each in entries.groups])
    directory = bytearray()
    try:
        for place in entries.places:
            directory += _PLACE.pack(_DROPPED, 0) if place is None else _PLACE.pack(place[0], len(place[1]))
    except StructError as error:
        raise Invalid("a batch has more groups, or longer entries, than can be stored") from error
    if len(entries.groups) >= _DROPPED:
        raise Invalid("a batch has more groups than can be stored")
    bodies = [place[1] for place in entries.places if place is not None]
    return b"".join((_HEAD.pack(len(groups), len(entries.places)), groups, directory, *bodies))


def unpack_entries(data: bytes) -> Entries:
    """Return the entries that `pack_entries` was given; FormatError for what it does not produce."""
    try:
        size, count = _HEAD.unpack_from(data)
        start = _HEAD.size + size
        bodies = start + count * _PLACE.size
        directory = [*_PLACE.iter_unpack(data[start:bodies])]
        groups = [
            Group(TenantId(tenant), tuple(map(Part, parts)), form, supersede)
            for tenant, parts, form, supersede in codec.unpack(data[_HEAD.size : start])
        ]
    except (StructError, TypeError, ValueError) as error:
        raise FormatError("the entries of a certificate batch are damaged") from error
    ends = [*accumulate((length for _, length in directory), initial=bodies)]
    known = {*range(len(groups)), _DROPPED}
    if len(directory) != count or ends[-1] != len(data) or any(group not in known for group, _ in directory):
        raise FormatError("the entries of a certificate batch are damaged")
    return Entries(
        groups,
        [
            None if group == _DROPPED else (group, data[begin:end])
            for (group, _), begin, end in zip(directory, ends[:-1], ends[1:], strict=True)
        ],
    )
