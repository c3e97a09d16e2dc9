"""A service is offered what it asks of the catalog, and not the catalog."""

import ast
import importlib
import inspect
import statistics
from collections.abc import Mapping
from pathlib import Path

from vault.ports.catalog import Catalog, RestorableCatalog

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "vault" / "services"
WHOLE = {"vault.services.vault": "the open vault holds every collaborator, and hands out the parts"}


def methods_of(port: type) -> frozenset[str]:
    return frozenset(name for name in dir(port) if not name.startswith("_"))


def offered() -> Mapping[str, frozenset[str]]:
    """Return the methods of the catalog that the constructor of each service offers to it."""
    found = {}
    for path in sorted(SERVICES.rglob("*.py")):
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name, service in inspect.getmembers(module, inspect.isclass):
            if service.__module__ != module.__name__ or "__init__" not in vars(service):
                continue
            taken = inspect.get_annotations(service.__init__, eval_str=False).get("catalog")
            if taken is not None and module.__name__ not in WHOLE:
                found[f"{module.__name__}.{name}"] = methods_of(vars(module)[taken])
    return found


def test_half_of_the_services_are_offered_eight_methods_of_the_catalog_or_fewer():
    methods = offered()
    assert len(methods) > 30
    assert statistics.median(map(len, methods.values())) <= 8, {name: len(found) for name, found in methods.items()}
    whole = methods_of(Catalog) | methods_of(RestorableCatalog)
    assert all(len(found) < len(whole) / 2 for found in methods.values())


def test_a_service_is_offered_no_subject_that_neither_it_nor_what_it_imports_asks_for_anything():
    trees = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(SERVICES.rglob("*.py"))
    }
    named = {
        name: {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} for name, tree in trees.items()
    }
    idle = []
    for name in trees.keys() - WHOLE.keys():
        module = importlib.import_module(name)
        imported = {each.module for each in ast.walk(trees[name]) if isinstance(each, ast.ImportFrom)} & trees.keys()
        asked = named[name].union(*(named[each] for each in imported))
        for _, port in inspect.getmembers(module, inspect.isclass):
            if port.__module__ == name and getattr(port, "_is_protocol", False):
                subjects = [base for base in port.__bases__ if base.__module__.startswith("vault.ports.")]
                idle += [f"{base.__name__} for {port.__name__}" for base in subjects if not methods_of(base) & asked]
    assert idle == []


def test_clock_entropy_and_metrics_come_to_a_service_as_one_value():
    apart = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted(SERVICES.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for each in node.body
        if isinstance(each, ast.FunctionDef) and each.name == "__init__"
        if len({"clock", "entropy", "metrics"} & {arg.arg for arg in (*each.args.args, *each.args.kwonlyargs)}) > 1
    }
    # The server bounds its connections with shares too, which need no randomness.
    assert apart == {"vault/services/ingest/slots.py: Shares"}
