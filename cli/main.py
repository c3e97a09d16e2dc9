"""The command `callvault`: its tree of commands, and the report of errors and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from cli.exit_codes import Exit, exit_code
from cli.lazy_commands import lazy_group
from cli.output import report_error
from vault import __version__
from vault.errors import Invalid, Unavailable, VaultError
from vault.places import is_settled, unusable

if TYPE_CHECKING:
    from pydantic import ValidationError

COMMANDS: Final = {
    "quickstart": "cli.quickstart",
    "init": "cli.init",
    "doctor": "cli.doctor",
    "serve": "cli.serve",
    "demo": "cli.demo.command",
    "import": "cli.archives.importing",
    "export": "cli.archives.exporting",
    "tenants": "cli.tenants",
    "tokens": "cli.tokens",
    "recordings": "cli.recordings",
    "recorders": "cli.recorders",
    "holds": "cli.holds",
    "erasures": "cli.erasures",
    "policy": "cli.policy",
    "sweep": "cli.sweep",
    "certificates": "cli.certificates",
    "audit": "cli.audit",
    "profile": "cli.profile",
    "catalog": "cli.catalog",
    "journal": "cli.journal",
    "keys": "cli.keys",
    "backup": "cli.backup",
    "prove": "cli.prove",
}
"""Every command and group, in the order of `--help`, with its module."""

app = typer.Typer(
    name="callvault",
    cls=lazy_group(COMMANDS),
    help="A streaming vault for call recordings: sealed on arrival, kept as promised, shredded provably.",
    epilog=(
        "Exit codes: 0 done, 2 usage, 3 refused, 4 not found, 5 integrity, 6 unavailable, 7 configuration.\n\n"
        "Examples:\n\n  callvault demo\n\n  callvault quickstart\n\n  callvault init && callvault serve"
    ),
    no_args_is_help=True,
    # A traceback with local variables would print tokens and keys.
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"callvault {__version__}")
        raise typer.Exit


@app.callback()
def callvault(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Read the options that belong to no command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; expected errors are printed in two lines, never as a traceback."""
    try:
        outcome = app(
            args=list(sys.argv[1:] if arguments is None else arguments), prog_name="callvault", standalone_mode=False
        )
    except typer.TyperException as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe. Without a new standard output the interpreter would report an error when it
        # ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except (VaultError, OSError, BaseExceptionGroup) as failure:
        errors = list(_expected(failure))
        if not errors:
            raise
        for each in errors:
            report_error(each)
        return exit_code(errors[0])
    return outcome if isinstance(outcome, int) else Exit.DONE


def _usage(error: typer.TyperException) -> int:
    """Report a mistyped command line in the same two lines as other errors."""
    if type(error.__cause__).__name__ == "ValidationError":
        from vault.wording import first_misfit  # noqa: PLC0415 - only a mistyped value needs it

        vars(error)["message"] = first_misfit(cast("ValidationError", error.__cause__))[1]
    describe = getattr(error, "format_message", None)
    message = str(describe() if callable(describe) else error)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, file=sys.stderr)
        return Exit.USAGE
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context is not None else "callvault --help"
    report_error(Invalid(message, hint=hint))
    return Exit.USAGE


def _told(error: BaseException) -> VaultError | None:
    """Return the vault's own error, or one that names the file the system refused; None for a defect."""
    if isinstance(error, VaultError):
        return error
    if not isinstance(error, OSError) or not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    path = Path(os.fsdecode(error.filename))
    return unusable(path, error) if is_settled(error) else Unavailable(f"{path}: {error.strerror}")


def _expected(failure: BaseException) -> Iterator[VaultError]:
    """Yield the expected errors of a failure, those of a group one by one; none if any of them is a defect."""
    if not isinstance(failure, BaseExceptionGroup):
        if (told := _told(failure)) is not None:
            yield told
        return
    _, other = failure.split(lambda error: _told(error) is not None)
    for each in failure.exceptions if other is None else ():
        yield from _expected(each)


def run() -> None:
    """Console entry point."""
    sys.exit(main())
