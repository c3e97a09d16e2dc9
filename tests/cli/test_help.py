import re
import shlex
from pathlib import Path

import pytest

from cli.main import main
from tests.helpers.command_tree import LEAVES

EXAMPLES = [
    (path, line.strip().replace("\\[", "["))
    for path, command in LEAVES.items()
    for line in command.epilog.split("\n\n")[1:]
]
OWN_FILES = "umask 077"
SECRET = re.compile(r"callvault (?:init(?! --defaults)|tokens issue|recorders show .*--issue)\b.*[^-=]>")


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_explains_itself_with_an_example_and_offers_json(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*path, "--help"]) == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"Examples: callvault {' '.join(path)}" in shown
    assert "--json" in shown
    assert LEAVES[path].help
    for paragraph in LEAVES[path].help.split("\n\n"):
        assert "\n" not in paragraph
        assert paragraph.replace("\\[", "[") in shown


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_every_example_is_a_command_line_that_parses(path: tuple[str, ...], example: str) -> None:
    words = shlex.split(re.split(r" [|<>] ", example.removeprefix(f"({OWN_FILES} && "))[0])
    assert words[: len(path) + 1] == ["callvault", *path]
    with LEAVES[path].make_context("callvault", words[len(path) + 1 :]):
        pass


def test_whatever_writes_a_secret_into_a_file_makes_one_that_nobody_else_may_read() -> None:
    pages = [each.read_text().replace("\\\n", " ") for each in (Path("README.md"), *Path("docs").rglob("*.*"))]
    lines = [*(line for page in pages for line in page.splitlines()), *(example for _, example in EXAMPLES)]
    written = [line for line in lines if SECRET.search(line)]
    assert len(written) > 2
    assert [line for line in written if OWN_FILES not in line] == []


def test_every_group_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "sealed on arrival" in shown
    assert "callvault demo" in shown
    assert "3 refused" in shown


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"callvault \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_command_without_arguments_shows_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["holds"]) == 2
    shown = capsys.readouterr()
    assert "place" in shown.out + shown.err
