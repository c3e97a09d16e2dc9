"""The command `callvault demo`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.command import local
from cli.output import Output
from vault.errors import Unavailable, VaultError

if TYPE_CHECKING:
    from cli.demo.story import Story

_LIMIT_SECONDS: Final = 150
_MARGIN_SECONDS: Final = 9
"""From the end of the calls to the end of their retention: time for the checks in between."""

_OPENING = (
    "Callvault records phone calls for organisations that must keep them for a while, prove who listened, and then "
    "prove that they are gone. This demo starts the real server in a directory of its own, records two calls as they "
    "happen, and checks every promise it makes on the way. Retention is seconds here instead of 90 days. "
    "It takes about a minute."
)
_CLOSING = (
    "Both recordings are gone: not hidden, not marked as deleted. Their keys no longer exist, so no copy or backup of "
    "the sealed audio opens any more, and signed certificates say so. They also say how sure that is: best effort, "
    "with root keys in files as here. Start your own vault: callvault init, then callvault serve."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    local(app, "demo", examples=["callvault demo", "callvault demo --keep ./demo", "callvault demo --json"])(demo)


async def demo(
    out: Output,
    keep: Annotated[
        Path | None, typer.Option(help="Use this new or empty directory and leave everything there.")
    ] = None,
) -> None:
    """Record, play, hold, expire and certify two real calls, checking every claim; about a minute.

    Nothing outside a temporary directory is touched. Exits with 0 only if every step truly happened.
    """
    from cli.demo.narrator import Narrator  # noqa: PLC0415 - a command imports what it needs when it runs
    from cli.demo.stage import BYTES_A_SECOND, Stage, make_directory, sample_call  # noqa: PLC0415 - likewise
    from cli.demo.story import Story  # noqa: PLC0415 - likewise

    audio = sample_call()
    directory = make_directory(keep)
    stage = Stage(directory, retention_seconds=len(audio) // BYTES_A_SECOND + _MARGIN_SECONDS)
    narrator = Narrator(out)
    narrator.opening(_OPENING)
    try:
        await _tell(Story(stage=stage, narrator=narrator, audio=audio))
    except VaultError as error:
        narrator.failed(error, str(directory))
        raise
    except BaseException:
        # Interrupted, not failed: no evidence needs to be kept.
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    narrator.closing(_CLOSING)
    if keep is None:
        shutil.rmtree(directory)
    else:
        out.note(f"everything the demo made is kept in {directory}")


async def _tell(story: Story) -> None:
    import asyncio  # noqa: PLC0415 - a command imports what it needs when it runs

    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            await story.tell()
    except TimeoutError as error:
        raise Unavailable(f"the demo took longer than {_LIMIT_SECONDS} seconds") from error
    except BaseExceptionGroup as group:
        # Two calls run in parallel; the first failure is reported.
        known, other = group.split(VaultError)
        if known is None or other is not None:
            raise
        first: BaseException = known
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from group
