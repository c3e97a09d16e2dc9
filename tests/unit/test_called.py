"""The product uses every public function, class and method of its pure packages: a rule that nobody asks binds nobody.

Source is read, not imported. What code outside the pure packages or the body of a module names is used, and, step by
step, what that names. A name behind a dot may be any class's member of that name.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PURE = ("protocol", "retention", "access", "certificates", "media", "crypto", "format", "model", "ids", "errors")

ALLOWED: Mapping[str, str] = {}
"""What may wait for its use, each with the reason."""


@dataclass(eq=False)
class Definition:
    """A function, a class or a module's body, and the names that its own code uses."""

    module: str
    name: str = ""
    inside: "Definition | None" = None
    is_class: bool = False
    names: set[str] = field(default_factory=set)
    """Plain names, as `module:name` of the module they come from."""
    members: set[str] = field(default_factory=set)

    @property
    def label(self) -> str:
        return f"{self.inside.label}.{self.name}" if self.inside else self.module

    @property
    def public(self) -> bool:
        return not self.name.startswith("_") and (self.inside is None or self.inside.public)


def definitions(module: str, source: str) -> Iterator[Definition]:
    """Yield the module's body and everything that it defines, at any depth."""
    imported: dict[str, str] = {}

    def walk(node: ast.AST, inside: Definition) -> Iterator[Definition]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found = Definition(module, child.name, inside, isinstance(child, ast.ClassDef))
                yield found
                yield from walk(child, found)
                continue
            if isinstance(child, ast.ImportFrom):
                imported.update({name.asname or name.name: f"{child.module}:{name.name}" for name in child.names})
            elif isinstance(child, ast.Name):
                inside.names.add(imported.get(child.id, f"{module}:{child.id}"))
            elif isinstance(child, ast.Attribute):
                inside.members.add(child.attr)
                if isinstance(child.value, ast.Name):
                    inside.names.add(f"{imported.get(child.value.id, '').replace(':', '.')}:{child.attr}")
            yield from walk(child, inside)

    body = Definition(module)
    yield body
    yield from walk(ast.parse(source), body)


def unused(sources: Mapping[str, str], *, pure: tuple[str, ...]) -> set[str]:
    """Return the labels of the public definitions of the `pure` packages that no used code names."""
    every = [found for module, source in sources.items() for found in definitions(module, source)]
    waiting = {found for found in every if found.inside and found.module.startswith(pure)}
    names, members, reached = set[str](), set[str](), set(every) - waiting
    while reached:
        names.update(*(found.names for found in reached))
        members.update(*(found.members for found in reached))
        reached = {found for found in waiting if found.inside not in waiting and _named(found, names, members)}
        waiting -= reached
    return {found.label for found in waiting if found.public and found.inside not in waiting}


def _named(found: Definition, names: set[str], members: set[str]) -> bool:
    if found.inside and found.inside.is_class:
        # Python itself calls what has a name like __eq__.
        return found.name in members or found.name.startswith("__")
    return f"{found.module}:{found.name}" in names


def test_every_public_rule_of_the_pure_packages_is_used():
    sources = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text()
        for root in ("vault", "cli")
        for path in sorted((ROOT / root).rglob("*.py"))
    }
    found = unused(sources, pure=tuple(f"vault.{name}" for name in PURE))
    assert found == ALLOWED.keys(), f"{sorted(found)}: call it where the design says, or delete it with its tests"


def test_what_only_unused_code_names_is_unused():
    rules = """
def asked(): return helper()
def helper(): return Kept().used()
def forgotten(): return beneath()
def beneath(): return forgotten()
def _private(): return 1
class Kept:
    def __eq__(self, other): return other.compared
    def used(self): return 1
    def left(self): return 1
    compared = property(lambda self: 1)
class Lost:
    def used(self): return 1
"""
    product = (
        "from pure import rules as r\nfrom other.rules import forgotten\ndef serve(): return r.asked(), forgotten()"
    )
    found = unused({"pure.rules": rules, "app": product}, pure=("pure",))
    assert found == {f"pure.rules.{name}" for name in ("forgotten", "beneath", "Kept.left", "Lost")}
