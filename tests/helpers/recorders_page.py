"""Writes docs/recorders.md from the templates of `callvault recorders`, or with --check says whether it is up to date.

What a recorder's run looked like is in `docs/recorders/NAME.txt`, as it was printed; a section shows it if it is there.
What each dialect does with what it cannot understand is in `docs/recorders/not-understood.md`.
"""

import argparse
import sys
from pathlib import Path

from yarl import URL

from cli.recorders import notes
from cli.setups import RECORDERS, Place
from tests.helpers.documents import looks_like_shell

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recorders.md"
OUTPUTS = ROOT / "docs" / "recorders"
UNKNOWN = OUTPUTS / "not-understood.md"
EXAMPLE = Place(URL("https://vault.example.org"), "northfield-college")
INTRODUCTION = """# Recorders

How each recorder is set up so that its calls arrive, as `callvault recorders show NAME --tenant TENANT` prints it.
With `--issue NAME` an operator has a token issued and filled in. On this page `$CALLVAULT_TOKEN` stands for the
token, `$CALLVAULT_TOKEN_ID` for its id (`tok_` and the part between the underscores) and `$CALLVAULT_TOKEN_SECRET`
for its secret (the rest). A recorder's token can record, pause, flag and hold its calls, and nothing else: [the
roles](access.md#roles).

If the server's certificate comes from an authority of your own, [each client is
told](operations.md#an-authority-of-your-own).

This page is made by `python -m tests.helpers.recorders_page`; a test compares.
"""
TITLES = "| recorder | how | `callvault recorders show` |\n|---|---|---|\n"
LANGUAGES = ((".sh", "bash"), (".py", "python"), (".mjs", "js"), (".xml", "xml"), (".json", "json"), (".conf", "ini"))


def language(file):
    """Return the name of the language a file is in, for whoever colours the page."""
    if file.content.startswith("<?xml"):
        return "xml"
    if file.content.startswith(("{", "[\n")):
        return "json"
    return next((name for suffix, name in LANGUAGES if file.path.endswith(suffix)), "")


def section(recorder):
    """Return one recorder's part of the page."""
    lines = [f"## {recorder.title}", ""]
    for file in recorder.files(EXAMPLE):
        lines += [f"{file.path}:", "", f"```{language(file)}", file.content.rstrip("\n"), "```", ""]
    said = [note for note in notes(recorder, EXAMPLE) if "callvault tokens issue" not in note]
    lines += [*(f"- {note}" for note in said), f"- Documentation: <{recorder.source}>.", ""]
    output = OUTPUTS / f"{recorder.name}.txt"
    if output.exists():
        said = output.read_text()
        lines += ["What it looks like:", "", f"```{looks_like_shell(said) or ''}", said.rstrip("\n"), "```", ""]
    return "\n".join(lines)


def anchor(title):
    """Return the anchor of a heading."""
    kept = "".join(char for char in title.lower() if char.isalnum() or char in " -_")
    return kept.replace(" ", "-")


def render():
    """Return the whole page."""
    rows = [
        f"| [{each.title}](#{anchor(each.title)}) | `{each.route}` | `{each.name}` |" for each in RECORDERS.values()
    ]
    table = TITLES + "\n".join(rows) + "\n"
    return "\n".join([INTRODUCTION, table, UNKNOWN.read_text(), *map(section, RECORDERS.values())]).rstrip("\n") + "\n"


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.helpers.recorders_page", description="Write docs/recorders.md."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is not up to date")
    if not parser.parse_args(arguments).check:
        PAGE.write_text(render())
        return 0
    if PAGE.read_text() == render():
        return 0
    sys.stderr.write("docs/recorders.md is not what the templates give: python -m tests.helpers.recorders_page\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
