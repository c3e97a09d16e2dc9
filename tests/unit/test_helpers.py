"""What tests share is in tests/helpers: whoever changes a test changes no other."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
OF_A_TEST = re.compile(
    r"^\s*(?:from|import) (?:tests)?\.[\w.]*\btest_\w+|^\s*from (?:tests)?\.[\w.]* import test_", re.MULTILINE
)


def imports_of_tests(text):
    return [found.strip() for found in OF_A_TEST.findall(text)]


def test_no_module_imports_a_test():
    found = {path.name: imports_of_tests(path.read_text()) for path in TESTS.rglob("*.py")}
    assert len(found) > 250
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_an_import_of_a_test_is_seen_however_it_is_written():
    module = "test_tls"
    for text in (
        f"from tests.integration.{module} import FILES",
        f"import tests.integration.{module}",
        f"from tests.integration import {module}",
        f"    from .{module} import FILES",
    ):
        assert imports_of_tests(text), text
    assert imports_of_tests("from tests.helpers.authorities import FILES") == []


def test_no_helper_is_a_test():
    assert [path.name for path in (TESTS / "helpers").rglob("*.py") if path.read_text().count("\ndef test_")] == []
