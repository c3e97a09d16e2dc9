"""Puncturable trees: leaf keys of whole, punctured and retained covers."""

from tests.vectors.encoding import seed
from vault.crypto import ggm, spans

NAME = "ggm"
ABOUT = (
    "A tree with `root` as its seed, after taking the leaves of `taken` or keeping only those of `kept` (lists of "
    "first and last leaf). `cover` lists the remaining nodes as [depth, prefix, seed], by first leaf. `key` is the key "
    "of `leaf`; the outcome shredded means that the cover derives none."
)

ROOT = seed("tree")
LAST = (1 << 32) - 1


def case(name, cover, leaf, **how):
    key = ggm.leaf_key(cover, leaf)
    nodes = sorted(cover.nodes, key=lambda node: node[1] << (32 - node[0]))
    return {
        "name": name,
        "outcome": "shredded" if key is None else "ok",
        "root": ROOT.hex(),
        **{word: [list(span) for span in each] for word, each in how.items()},
        "cover": [[*node, cover.nodes[node].hex()] for node in nodes],
        "leaf": leaf,
        **({} if key is None else {"key": key.hex()}),
    }


def cases():
    whole = ggm.plant(ROOT)
    one, batch = spans.points([0]), spans.union([(5, 9), (1 << 31, 1 << 31)])
    pinned = spans.union([(6, 7), (1024, 2047)])
    return [
        case("first leaf of a whole tree", whole, 0, taken=()),
        case("a middle leaf of a whole tree", whole, 0xB0000005, taken=()),
        case("last leaf of a whole tree", whole, LAST, taken=()),
        case("a punctured leaf", ggm.puncture(whole, one), 0, taken=one),
        case("the neighbour of a punctured leaf", ggm.puncture(whole, one), 1, taken=one),
        case("a leaf far from a punctured one", ggm.puncture(whole, one), LAST, taken=one),
        case("a leaf inside a punctured run", ggm.puncture(whole, batch), 9, taken=batch),
        case("a leaf after a punctured run", ggm.puncture(whole, batch), 10, taken=batch),
        case("a kept leaf", ggm.retain(whole, pinned), 6, kept=pinned),
        case("a leaf of a kept run", ggm.retain(whole, pinned), 1500, kept=pinned),
        case("a leaf that was not kept", ggm.retain(whole, pinned), 8, kept=pinned),
        case("nothing kept", ggm.retain(whole, ()), 8, kept=()),
    ]
