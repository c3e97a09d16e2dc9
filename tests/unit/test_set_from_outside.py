"""Nobody changes an object from outside: what changes it is a method with a name, which keeps what must hold.

A module may set the fields of a dataclass that it declares itself, and the attributes of what it has just made.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = ("self", "cls")

ALLOWED: Mapping[str, str] = {
    "vault/server/connections/http_protocol.py: line.unused": "its intake alone counts it, for every piece read",
    "vault/server/connections/http_protocol.py: content._exception": "aiohttp has no way to take an exception back",
    "vault/server/ingest/websocket.py: self._idle.heard_at": "noted for every piece of audio, and a call costs more",
    "vault/server/idempotency.py: error.hint": "only who holds the key of the request knows what its sender is to do",
}
"""What may be set all the same, as `module: target`, each with the reason."""


def fields(tree: ast.Module) -> set[str]:
    """Return the fields of every dataclass that may change."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            if any(mark.startswith("dataclass") and "frozen=True" not in mark for mark in marks):
                found |= {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}
    return found


def made(function: ast.AST) -> set[str]:
    """Return the local names to which what a call returns is given."""
    return {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def set_from_outside(source: str) -> Iterator[str]:
    """Yield every attribute that is set or deleted of something that is neither `self` nor made or declared here."""
    tree = ast.parse(source)
    declared = fields(tree)

    def walk(node: ast.AST, local: set[str]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inner = made(child) if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else local
            if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store | ast.Del):
                whose = ast.unparse(child.value)
                if whose not in OWN and whose not in local and child.attr not in declared:
                    yield ast.unparse(child)
            yield from walk(child, inner)

    yield from walk(tree, set())


def test_no_attribute_of_an_object_is_set_from_outside():
    found = {
        f"{path.relative_to(ROOT)}: {target}"
        for package in ("services", "server", "wiring")
        for path in sorted((ROOT / "vault" / package).rglob("*.py"))
        for target in set_from_outside(path.read_text())
    }
    assert found == ALLOWED.keys(), f"{sorted(found - ALLOWED.keys())}: make it a method of what it changes"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def close(session): session.ended = 'sealed'", ["session.ended"]),
        ("def close(self): self.session.stored += 1", ["self.session.stored"]),
        ("def close(self): del self.session.feed", ["self.session.feed"]),
        ("def close(self):\n for session.at in (1, 2): pass", ["session.at"]),
        ("class Session:\n def close(self): self.ended = 'sealed'", []),
        (
            "def make():\n session = Session()\n session.ended = 1\ndef close(session): session.ended = 2",
            ["session.ended"],
        ),
        ("@dataclass(slots=True)\nclass Count:\n done: int = 0\ndef count(to): to.done += 1", []),
        ("@dataclass(frozen=True)\nclass Count:\n done: int = 0\ndef count(to): to.done += 1", ["to.done"]),
    ],
)
def test_what_is_set_from_outside_is_found(source, found):
    assert list(set_from_outside(source)) == found
