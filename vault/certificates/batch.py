"""Certificates issued together: one signed statement over the root of a Merkle tree whose leaves are the documents.

See docs/certificates.md, "Batches". The leaf of a certificate is its RFC 8785 document, the same bytes that its
own JWS signs, so that a transparency log can include the leaves unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import rfc8785

from vault.certificates.canonical import canonical_json, from_json
from vault.certificates.rules import Rule, naming_rule
from vault.certificates.tree import HASH_BYTES, MAX_PATH, leaf_hash, verify_inclusion
from vault.crypto.signing import VerifyKey, decode_base64url, encode_base64url, protected_header, verify_compact
from vault.errors import FormatError, Invalid
from vault.ids import id_bytes

SCHEMA: Final = "callvault/certificate-batch/v1"
TYPE: Final = "callvault-certificate-batch+jws"
HEADERS: Final = frozenset({"batch", "batch_index", "batch_path"})
"""The members that the protected header of a certificate in a batch has. They come together or not at all."""

_STATEMENT_HEADER: Final = frozenset({"alg", "kid", "typ"})
_ROOT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


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
