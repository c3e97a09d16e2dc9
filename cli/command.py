"""Registers commands: each gets --json and examples, and commands for a server get the connection options.

A command is a function whose first parameter is a `Remote` or an `Output`; the others are its own options. Registration
adds the options that all commands of a kind share, so that no command lacks them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_args, get_origin

import typer

from cli.client import DEFAULT_SERVER, Client, carries_clear
from cli.lazy_commands import Group
from cli.output import Output
from cli.profiles import Connection, connection
from vault.errors import Conflict, Forbidden, Invalid

if TYPE_CHECKING:
    from vault.config import Config


# -- registration -------------------------------------------------------------------------------------------------

Asynchronous = TypeVar("Asynchronous", bound=Callable[..., Awaitable[None]])
Local = TypeVar("Local", bound=Callable[..., Coroutine[Any, Any, None] | None])

# Not checked by Typer: its error names neither the file's owner nor the user who cannot read it.
ConfigPath = Annotated[
    Path, typer.Option("--config", envvar="CALLVAULT_CONFIG", readable=False, help="The vault's settings.")
]
DEFAULT_CONFIG: Final = Path("config.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The client and the output of a command for a server."""

    client: Client
    out: Output


def load_config(path: Path) -> Config:
    """Return the settings in a file like `vault.config.load_config`, whose libraries load with the first call."""
    from vault.config import load_config as load  # noqa: PLC0415 - a command imports what it needs when it runs

    return load(path)


def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Run a command's coroutine to completion."""
    import asyncio  # noqa: PLC0415 - a command imports what it needs when it runs

    asyncio.run(work)


def _option(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_JSON: Final = _option(
    "as_json", Annotated[bool, typer.Option("--json", help="Print JSON for programs.")], default=False
)
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        show_default=False,
        help="A vault of `callvault profile list`: its address, authority and token; else CALLVAULT_PROFILE.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        show_default=False,
        help="Trust the authorities in this file, and no others; else the profile's, or CALLVAULT_CA_FILE.",
    ),
]
_CONNECTION: Final = (
    _option(
        "server",
        Annotated[
            str | None,
            typer.Option(
                "--server",
                show_default=False,
                help=f"The server's address; else the profile's, CALLVAULT_SERVER or {DEFAULT_SERVER}.",
            ),
        ],
        None,
    ),
    _option("profile", ProfileOption, None),
    _option(
        "token_file",
        Annotated[
            Path | None,
            typer.Option(
                "--token-file",
                show_default=False,
                help="Read the token from this file, mode 600; else the profile's, or CALLVAULT_TOKEN.",
            ),
        ],
        None,
    ),
    _option("ca_file", CaFile, None),
    _option("token", Annotated[str | None, typer.Option("--token", hidden=True)], None),
)


def new_group(text: str) -> typer.Typer:
    """Return a group of commands about one subject."""
    return typer.Typer(
        cls=Group, help=_escaped(text), no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich"
    )


def remote(group: typer.Typer, name: str, *, examples: Sequence[str]) -> Callable[[Asynchronous], Asynchronous]:
    """Register a command that talks to a server; its function takes a `Remote` first."""

    def register(function: Asynchronous) -> Asynchronous:
        def command(
            *,
            server: str | None,
            profile: str | None,
            token_file: Path | None,
            ca_file: Path | None,
            token: str | None,
            as_json: bool,
            **options: Any,
        ) -> None:
            out = Output(as_json=as_json)
            if token is not None:
                raise Invalid(
                    "a token on the command line can be read by every user of this machine; nothing was sent",
                    hint="put it into CALLVAULT_TOKEN, a file of mode 600 (--token-file) or a profile (callvault "
                    "profile add); if others use this machine, issue a new token and revoke this one",
                )

            async def work() -> None:
                # A command on the vault's own files needs no server and no token.
                aside = options.get("config") is not None
                where: Any = {"server": server, "profile": profile, "token_file": token_file, "ca_file": ca_file}
                to = Connection(server=DEFAULT_SERVER) if aside else connection(**where)
                async with Client(to.server, to.token, ca_file=to.ca_file, vault=to.vault) as client:
                    if not aside and carries_clear(client.url):
                        out.note("warning: plain HTTP carries the token and any audio in clear")
                    await function(Remote(client=client, out=out), **_gathered(function, options))

            to_its_end(work())

        _register(group, name, command=command, function=function, shared=(*_CONNECTION, _JSON), examples=examples)
        return function

    return register


def local(group: typer.Typer, name: str, *, examples: Sequence[str]) -> Callable[[Local], Local]:
    """Register a command that needs no server; its function, which may be asynchronous, takes an `Output` first."""

    def register(function: Local) -> Local:
        def command(*, as_json: bool, **options: Any) -> None:
            work = function(Output(as_json=as_json), **_gathered(function, options))
            if work is not None:
                to_its_end(work)

        _register(group, name, command=command, function=function, shared=(_JSON,), examples=examples)
        return function

    return register


def _register(
    group: typer.Typer,
    name: str,
    *,
    command: Callable[..., None],
    function: Callable[..., Any],
    shared: Sequence[inspect.Parameter],
    examples: Sequence[str],
) -> None:
    own = [option for parameter in _own(function) for option in _options(parameter)]
    by_name = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    options = [each.replace(annotation=_shown(each.annotation)) for each in (*by_name, *shared)]
    # Typer reads the signature to build the options and passes them as keywords.
    command.__dict__["__signature__"] = inspect.Signature(options, return_annotation=None)
    command.__annotations__.clear()
    command.__doc__ = _as_help(function.__doc__ or "")
    lines = [f"  {_escaped(example)}" for example in examples]
    group.command(name, epilog="\n\n".join(["Examples:", *lines]))(command)


def _own(function: Callable[..., Any]) -> Sequence[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())[1:]


def _grouped(parameter: inspect.Parameter) -> type[Any] | None:
    """Return the dataclass whose members are options, if the parameter has one."""
    kind = parameter.annotation
    return kind if isinstance(kind, type) and is_dataclass(kind) else None


def _options(parameter: inspect.Parameter) -> Sequence[inspect.Parameter]:
    """Return the options of a parameter."""
    kind = _grouped(parameter)
    return [parameter] if kind is None else list(inspect.signature(kind, eval_str=True).parameters.values())


def _gathered(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as the function's arguments."""
    gathered: dict[str, Any] = {}
    for parameter in _own(function):
        kind, given = _grouped(parameter), {each.name: options[each.name] for each in _options(parameter)}
        gathered |= given if kind is None else {parameter.name: kind(**given)}
    return gathered


def _shown(annotation: Any) -> Any:
    """Return an option's annotation with its help text prepared for display."""
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *infos = get_args(annotation)
    shown = [copy(info) for info in infos]
    for info in shown:
        info.help = _escaped(info.help or "") or None
    return Annotated[(kind, *shown)]


def _escaped(text: str) -> str:
    """Return the text with its square brackets escaped where they are markup."""
    return text.replace("[", "\\[")


def _as_help(text: str) -> str:
    """Return a docstring as help: one line for each paragraph, which the terminal wraps, and no markup."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(_escaped(paragraph).split()) for paragraph in paragraphs)


# -- approving ----------------------------------------------------------------------------------------------------

Shown = Annotated[
    str | None, typer.Option("--shown", help="Approve what has this digest: the `shown` of the request as you saw it.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Approve the request as it is printed, without being asked.")]


async def digest(
    call: Remote,
    path: str,
    *,
    see: str,
    look: Callable[[Mapping[str, Any]], str | None],
    render: Callable[[Mapping[str, Any]], None],
    shown: str | None,
    yes: bool,
) -> str:
    """Return the digest to approve: the given one, or that of the request, which is printed and confirmed first.

    Invalid if no person sees the request (--json, no terminal) and no digest is given. Conflict if no approval is
    pending. Forbidden, before the question, if the server says that this token may not approve it. `look` returns the
    digest from the answer of `path`; `render` prints that answer. `see` is the command that shows it.
    """
    if shown is not None:
        return shown
    if call.out.as_json or not (yes or sys.stdin.isatty()):
        raise Invalid(
            "an approval needs the digest of the request that you saw, and no request was shown here",
            hint=f"look at the request with {see}, then approve with --shown and its digest; "
            "--yes prints the request and approves it",
        )
    request = await call.client.get(path)
    found = look(request)
    if found is None:
        raise Conflict("no approval is pending here; nothing was approved", hint=f"its state: {see}")
    if refused := request.get("may_not_approve"):
        raise Forbidden(f"{refused['detail']}; nothing was approved", hint=refused["hint"])
    render(request)
    if not yes and not typer.confirm("approve this?", err=True):
        raise Conflict("not approved")
    return found
