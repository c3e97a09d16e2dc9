"""The Merkle tree of RFC 6962: known roots, every proof of every small tree, and nothing else."""

from __future__ import annotations

import hashlib

import pytest

from vault.certificates.batch import Tree, leaf_hash, root_of, verify_inclusion
from vault.errors import FormatError, Tampered

# The leaves and roots that Certificate Transparency's own tests use.
INPUTS = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
INPUTS.append(bytes(range(0x60, 0x70)))
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(bytes([number])) for number in range(count)]


def by_definition(hashes: list[bytes]) -> bytes:
    """Section 2.1, word for word."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\x01" + by_definition(hashes[:split]) + by_definition(hashes[split:])).digest()


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert root_of([leaf_hash(data) for data in INPUTS[:size]]).hex() == ROOTS[size - 1]


@pytest.mark.parametrize("size", [*range(1, 34), 100, 255, 256])
def test_every_leaf_of_a_tree_is_proven_in_its_place_and_in_no_other(size: int) -> None:
    tree = Tree(leaves(size))
    assert tree.root == by_definition(leaves(size)) == root_of(leaves(size))
    for index, leaf in enumerate(leaves(size)):
        path = tree.path(index)
        verify_inclusion(leaf, index=index, size=size, path=path, root=tree.root)
        wrong = {(other, size) for other in {0, index - 1, index + 1, size - 1} - {index}}
        for place, of in wrong | {(-1, size), (size, size)}:
            with pytest.raises(Tampered):
                verify_inclusion(leaf, index=place, size=of, path=path, root=tree.root)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_a_proof_that_was_changed_proves_nothing(size: int) -> None:
    tree = Tree(leaves(size))
    for index, leaf in enumerate(leaves(size)):
        path = tree.path(index)
        changed = [(*path, bytes(32)), path[:-1] if path else (bytes(32),), path[::-1] if len(set(path)) > 1 else None]
        for each in changed:
            if each is None:
                continue
            with pytest.raises(Tampered):
                verify_inclusion(leaf, index=index, size=size, path=each, root=tree.root)
        for wrong_leaf, root in ((bytes(32), tree.root), (leaf, bytes(32))):
            with pytest.raises(Tampered):
                verify_inclusion(wrong_leaf, index=index, size=size, path=path, root=root)


def test_an_inner_node_cannot_pass_as_a_leaf() -> None:
    left, right = leaves(2)
    assert root_of([left, right]) != leaf_hash(left + right)


def test_there_is_no_tree_without_leaves_and_no_leaf_beyond_the_last() -> None:
    with pytest.raises(FormatError):
        root_of([])
    for index in (-1, 3):
        with pytest.raises(FormatError):
            Tree(leaves(3)).path(index)
