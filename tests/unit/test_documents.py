import ast
import json
import re
import shlex
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import get_type_hints

import pytest
import typer
from prometheus_client import CollectorRegistry

from benchmarks.__main__ import NAMES
from cli.main import app
from tests.helpers.documents import PAGES as DOCUMENTS
from tests.helpers.documents import blocks, looks_like_shell, typed
from vault.access.permissions import PERMISSIONS, Act
from vault.model import Role
from vault.server.ingest.uploading import Receipt
from vault.server.operation import build
from vault.server.routes import OPERATIONS
from vault.telemetry import Metrics

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "config.toml", ROOT / "Dockerfile"],
    key=str,
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
REQUIREMENT = re.compile(r"^(\S+==\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.MULTILINE)


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


def test_every_section_that_the_code_cites_is_on_its_page():
    cited = [
        (source.relative_to(ROOT), page, re.sub(r"\s+#?\s*", " ", section))
        for source in [*(ROOT / "vault").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
        for page, section in re.findall(r'docs/([a-z-]+\.md), "([^"]+)"', source.read_text())
    ]
    assert cited
    sections = {page: anchors((ROOT / "docs" / page).read_text()) for _, page, _ in cited}
    assert [each for each in cited if not anchors(f"# {each[2]}") <= sections[each[1]]] == []


def is_there(name):
    """Return whether a dotted name or a path is a module, a folder, or a name in a module."""
    path = name.removesuffix(".py").replace(".", "/")
    parent, _, last = path.rpartition("/")
    if any(place.exists() for place in (ROOT / f"{path}.py", ROOT / path, ROOT / name)):
        return True
    within = [place for place in (ROOT / f"{parent}.py", ROOT / parent / "__init__.py") if place.exists()]
    return any(re.search(rf"\b{last}\b", place.read_text()) for place in within)


def test_every_module_that_is_named_is_there():
    named = {
        (page.relative_to(ROOT), name)
        for page in [*PAGES, *(ROOT / "vault").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
        for name in re.findall(r"`((?:vault|cli|tests|benchmarks)(?:[./][a-z0-9_]+)+(?:\.py)?)", page.read_text())
        if page.name != "CHANGELOG.md"
    }
    assert {each for each in named if not is_there(each[1])} == set()


def test_what_a_page_calls_above_or_below_is_there():
    for page in DOCUMENTS:
        text = page.read_text()
        for found in re.finditer(r"\[(above|below)\]\(#([^)]+)\)", text):
            where = anchors(text[: found.start()])
            assert (found[2] in where) == (found[1] == "above"), f"{page.name}: {found[0]}"


def test_every_row_stands_in_a_table():
    """A row behind a blank line is shown as text with bars in it."""
    for page in DOCUMENTS:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for before, row, after in zip(lines := ["", *text.splitlines(), ""], lines[1:], lines[2:], strict=False):
            if row.startswith("|") and not before.startswith("|"):
                assert re.fullmatch(r"\|(-+:?\|)+", after), f"{page.name}: {row}"


def test_the_picture_of_the_layers_is_the_contract_that_is_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if "containers" not in each and each["type"] == "layers")
    boxes = {}
    for box in ET.parse(ROOT / "docs" / "layers.svg").iter("{http://www.w3.org/2000/svg}text"):
        if box.get("class") is None:
            boxes.setdefault(int(box.get("y")), []).append(box.text)
    assert [boxes[y] for y in sorted(boxes)] == [re.split(r" [|:] ", layer) for layer in layers]


def test_the_roles_table_is_the_permissions_table():
    page = (ROOT / "docs" / "access.md").read_text()
    table = page.split("<!-- roles:")[1].split("<!-- /roles -->")[0]
    rows = {
        row[0]: row[1:]
        for row in re.findall(r"^\| `(\w+)` " + r"\| (yes)? ?" * len(Role) + r"\|$", table, re.MULTILINE)
    }
    assert rows == {act.value: tuple("yes" if act in PERMISSIONS[role] else "" for role in Role) for act in Act}
    head = next(line for line in table.splitlines() if line.startswith("| act |"))
    assert [cell.strip() for cell in head.split("|")[2:-1]] == [role.value.replace("_", " ") for role in Role]


def test_every_line_about_a_credential_is_backed_by_a_test_that_exists_and_no_role_is_left_out():
    page = (ROOT / "docs" / "threat-model.md").read_text()
    lines = page.split("<!-- credentials:")[1].split("<!-- /credentials -->")[0].splitlines()[3:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for who, can, cannot, test in rows:
        assert who
        assert can
        assert cannot
        path, _, name = test.strip("`").partition("::")
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), test
    named = {word for row in rows for word in re.findall(r"\w+", row[0])}
    assert {"nobody", "catalog", *(role.value for role in Role)} <= named


def test_the_api_page_shows_every_operation():
    shown = set()
    for methods, path in re.findall(
        r"\b((?:GET|PUT|POST|HEAD|PATCH|DELETE|OPTIONS)(?:\|POST)?) +(/[\w/{}.\-]+)",
        (ROOT / "docs" / "api.md").read_text(),
    ):
        shown |= {(method.lower(), path) for method in methods.split("|")}
    documented = {(method, path) for path, methods in build(OPERATIONS)["paths"].items() for method in methods}
    assert documented <= shown
    assert not {path for _, path in shown if "rec_" not in path} - {path for _, path in documented}


def test_every_printed_receipt_of_a_recording_has_the_members_of_one():
    printed = [
        text for page in DOCUMENTS for text in re.findall(r'\{"[^{}]*"sha256"[^{}]*"state": ?"\w+"\}', page.read_text())
    ]
    assert len(printed) > 3
    members = [[name for name in json.loads(text) if name != "recording_id"] for text in printed]
    assert members == [[name for name in get_type_hints(Receipt) if name != "recording_id"]] * len(printed)


def test_the_image_copies_only_what_the_build_context_admits():
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert copied == admitted
    assert all((ROOT / name).exists() for name in admitted)


def test_the_build_tools_of_the_image_are_the_ones_development_locks():
    build_lock = dict(REQUIREMENT.findall((ROOT / "requirements" / "build.txt").read_text()))
    development = dict(REQUIREMENT.findall((ROOT / "requirements" / "dev.txt").read_text()))
    assert any(name.startswith("hatchling==") for name in build_lock)
    assert build_lock.items() <= development.items()


def test_every_benchmark_is_in_the_table_and_in_a_target_of_make_or_named_beside_it():
    folder = ROOT / "benchmarks"
    scripts = {each.stem for each in folder.glob("*.py") if "\nfrom benchmarks.common import" in each.read_text()}
    page = (folder / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == scripts
    assert {*NAMES, *re.findall(r"but for `(\w+)`.*`(\w+)`, which needs root", page)[0]} == scripts


def test_the_readme_shows_a_part_of_what_the_demo_prints():
    part = (
        (ROOT / "README.md").read_text().split("<!-- demo output: begin -->")[1].split("<!-- demo output: end -->")[0]
    )
    whole = (ROOT / "docs" / "demo.md").read_text()
    for step in part.replace("```", "").strip("\n").split("\n\n"):
        assert step in whole


def test_every_block_is_called_what_it_is_and_parses_as_that():
    wrong = []
    for block in (block for page in DOCUMENTS for block in blocks(page)):
        if not block.language and looks_like_shell(block.text):
            wrong.append(f"{block.name} is {looks_like_shell(block.text)}, and is not called so")
            continue
        try:
            PARSERS.get(block.language, lambda _: None)(block.text)
        except (AssertionError, SyntaxError, ValueError) as error:
            wrong.append(f"{block.name}: {error!r}")
    assert wrong == []


def shell(text):
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


PARSERS = {
    "sh": shell,
    "bash": shell,
    "console": lambda text: shell("\n".join(typed(text))),
    "python": ast.parse,
    "json": json.loads,
    "toml": tomllib.loads,
    "xml": lambda text: ET.fromstring(text.encode()),
}


def printed_commands(page):
    """Return the command lines of `callvault` on a page: whole ones of blocks, and those of prose and of xargs."""
    text = page.read_text()
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    whole = re.findall(r"^(?:\$ )?(callvault [a-z]+ .*?)(?: {2,}#.*)?$", blocks, re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    named = [" ".join(each.split()) for each in re.findall(r"`(callvault [a-z][^`]*)`", prose)]
    named += re.findall(r"\| xargs (callvault [a-z].*)$", blocks, re.MULTILINE)
    return [(line, False) for line in whole] + [(line, True) for line in named]


PRINTING = [
    page for page in PAGES if page.suffix == ".md" and page.name not in {"CHANGELOG.md", "format.md", "demo.md"}
]


@pytest.mark.parametrize("page", PRINTING, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_prints_is_one_that_parses(page):
    for line, named in printed_commands(page):
        command, (_, *words) = typer.main.get_command(app), shlex.split(re.split(r" [|<>] ", line)[0])
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        if named:
            assert not hasattr(command, "commands") or not words, line
            known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
            assert {word for word in words if word.startswith("--")} <= known, line
        else:
            command.make_context("callvault", words).close()
        former = {option for each in command.params for option in each.opts[1:] if option.startswith("--")}
        assert not former & {word.partition("=")[0] for word in words}, line


def test_every_metric_stands_on_the_page_of_metrics_and_no_other():
    metrics = Metrics(CollectorRegistry())
    metrics.catalog.aged_by(lambda: 0.0)
    kinds = {family.name: family.type for family in metrics.registry.collect()}
    kept = {f"{name}_total" if kind == "counter" else name for name, kind in kinds.items()}
    series = {f"{name}_{of}": name for name in kept if kinds.get(name) == "histogram" for of in ("bucket", "count")}
    told = re.findall(r"callvault_[a-z_]*[a-z]", (ROOT / "docs" / "operations.md").read_text())
    # What a server with several workers adds to each of them.
    assert {series.get(name, name) for name in told} == {*kept, "callvault_worker_up"}
