"""The puncturable tree: 2^32 leaf keys from one seed, each of which can be removed (docs/format.md, same heading).

The construction is that of Goldreich, Goldwasser and Micali: the children of a node are HMAC-SHA256(seed, label ‖ bit).
A cover is the set of nodes that are still kept. A node derives the leaves below it and no others, so nobody can compute
the key of a leaf that is under no kept node.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from vault.crypto import spans as runs
from vault.crypto.spans import Spans

DEPTH: Final = 32
SEED_BYTES: Final = 32

_LABEL: Final = b"callvault/v1/ggm"
_CHILD: Final = (_LABEL + b"\0", _LABEL + b"\1")

Node = tuple[int, int]
"""Depth and prefix: the node over the leaves whose first `depth` bits are `prefix`."""


@dataclass(frozen=True, slots=True)
class Cover:
    """The kept nodes of one tree, none above another. It is immutable, and seeds are not printed."""

    nodes: Mapping[Node, bytes] = field(repr=False)

    @staticmethod
    def of(nodes: Mapping[Node, bytes]) -> Cover:
        """Freeze a copy of `nodes`, none of which may lie above another."""
        return Cover(MappingProxyType(dict(nodes)))


def plant(seed: bytes) -> Cover:
    """Return the cover of a whole tree, whose seed is 32 random bytes."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed is {SEED_BYTES} bytes")
    return Cover.of({(0, 0): seed})


def leaf_key(cover: Cover, leaf: int) -> bytes | None:
    """Return the 32-byte key of `leaf`, or None if the cover no longer derives it."""
    depth = _depth_above(cover, leaf)
    if depth is None:
        return None
    return _walk(cover.nodes[depth, leaf >> (DEPTH - depth)], leaf, DEPTH - depth)


def derives(cover: Cover, leaf: int) -> bool:
    """Tell whether `leaf` has a key, without computing it."""
    return _depth_above(cover, leaf) is not None


def spans(cover: Cover) -> Spans:
    """Return the leaves that have a key."""
    return runs.union(_span(node) for node in cover.nodes)


def puncture(cover: Cover, taken: Spans) -> Cover:
    """Return the smallest cover that derives the leaves of `cover` except `taken`."""
    return retain(cover, runs.subtract(spans(cover), taken)) if taken else cover


def retain(cover: Cover, kept: Spans) -> Cover:
    """Return the smallest cover that derives the leaves of `cover` that are in `kept`."""
    return _carve(cover, runs.intersect(spans(cover), kept))


def descends(cover: Cover, later: Cover) -> bool:
    """Tell whether `cover` derives each node of `later` with the same seed: the leaves left have the same keys."""
    for (depth, prefix), seed in later.nodes.items():
        for above in range(depth + 1):
            ancestor = cover.nodes.get((above, prefix >> (depth - above)))
            if ancestor is not None:
                break
        else:
            return False
        if not hmac.compare_digest(_walk(ancestor, prefix, depth - above), seed):
            return False
    return True


def _span(node: Node) -> tuple[int, int]:
    depth, prefix = node
    width = DEPTH - depth
    return prefix << width, (prefix + 1 << width) - 1


def _depth_above(cover: Cover, leaf: int) -> int | None:
    if not 0 <= leaf < 1 << DEPTH:
        return None
    nodes = cover.nodes
    for depth in range(DEPTH + 1):
        if (depth, leaf >> (DEPTH - depth)) in nodes:
            return depth
    return None


def _walk(seed: bytes, prefix: int, levels: int) -> bytes:
    for shift in range(levels - 1, -1, -1):
        seed = hmac.digest(seed, _CHILD[prefix >> shift & 1], "sha256")
    return seed


def _carve(cover: Cover, kept: Spans) -> Cover:
    """Return the cover of exactly the leaves `kept`, which `cover` must derive.

    A node that loses a leaf is replaced by its children. If it were kept beside them, it would still derive that leaf.
    """
    carved: dict[Node, bytes] = {}
    stack = list(cover.nodes.items())
    while stack:
        node, seed = stack.pop()
        span = _span(node)
        if runs.contain(kept, span):
            carved[node] = seed
        elif runs.overlap(kept, span):
            depth, prefix = node
            stack += [((depth + 1, prefix << 1 | bit), hmac.digest(seed, _CHILD[bit], "sha256")) for bit in (0, 1)]
    return Cover.of(carved)
