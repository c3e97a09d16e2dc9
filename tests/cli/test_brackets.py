"""What stands in brackets is text, such as the name of a section: no markup is read into it."""

import re
from typing import Annotated

import pytest
import typer
from rich.progress import TextColumn

from cli.command import local, new_group
from cli.output import Output, report_error
from tests.helpers.command_tree import LEAVES, ROOT
from vault.errors import ConfigError

SAID = "[keyring.root] [bold]x[/bold] [/nothing] [red]"


def test_messages_show_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=False)
    out.note(SAID)
    out.hint(SAID)
    report_error(ConfigError(SAID, hint=SAID))
    out.table([SAID], [(SAID,)], empty="")
    out.fields([(SAID, SAID)])
    out.table(["x"], [], empty=SAID)
    shown = capsys.readouterr()
    assert (shown.err.count(SAID), shown.out.count(SAID)) == (5, 4)


def test_a_progress_bar_shows_brackets_as_they_are() -> None:
    bar = Output(as_json=False)._bar(TextColumn("", markup=False))
    bar.add_task(SAID, total=1)
    with bar.console.capture() as shown:
        bar.console.print(bar.get_renderable())
    assert SAID in shown.get()


def test_help_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    group = new_group("Of [keyring.root].")

    @local(group, "look", examples=["callvault look [ID]"])
    def look(
        out: Output,
        name: Annotated[str, typer.Argument(help="As [objects.s3] has it.")],
        size: Annotated[int, typer.Option(help="As [segments] has it.")] = 1,
    ) -> None:
        """Look at [keyring.previous_root]."""

    @local(group, "other", examples=["callvault other"])
    def other(out: Output) -> None:
        """Do [nothing]."""

    tree = typer.main.get_command(group)
    for words, brackets in (
        (["look", "--help"], ["[keyring.previous_root]", "[objects.s3]", "[segments]", "callvault look [ID]"]),
        (["--help"], ["[keyring.root]", "[keyring.previous_root]", "[nothing]"]),
    ):
        tree.main(args=words, prog_name="callvault", standalone_mode=False)
        shown = capsys.readouterr().out
        assert all(each in shown for each in brackets), shown


def test_no_help_of_a_command_loses_a_bracket() -> None:
    texts = [ROOT.help, *(each.help for command in LEAVES.values() for each in (command, *command.params))]
    assert [text for text in texts if re.search(r"(?<!\\)\[[a-z/]", text or "")] == []
