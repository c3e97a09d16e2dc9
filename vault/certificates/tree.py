"""Merkle trees over certificates: RFC 6962 section 2.1, proofs verified as in RFC 9162 section 2.1.3.2.

All hashes are 32 bytes of SHA-256; a leaf's is over `0x00 ‖ document`, an inner node's over `0x01 ‖ left ‖ right`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from vault.errors import FormatError, Tampered

HASH_BYTES: Final = 32
MAX_PATH: Final = 53
"""The greatest number of hashes in an inclusion proof: no tree whose size JSON can carry is higher."""

_sha256 = hashlib.sha256


def leaf_hash(document: bytes) -> bytes:
    """Return the hash of a leaf."""
    return _sha256(b"\x00" + document).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the tree's root from its leaf hashes; FormatError if there are none."""
    return _levels(leaves)[-1][0]


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
        above = [_sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        # The last of an odd number moves up unchanged, because section 2.1 splits at the largest power of two.
        levels.append(above if len(level) % 2 == 0 else [*above, level[-1]])
    return levels


def _node(left: bytes, right: bytes) -> bytes:
    return _sha256(b"\x01" + left + right).digest()
