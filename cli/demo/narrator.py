"""Prints the demo: sentences for people, JSON lines for programs. A claim is printed only once it is proven."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from rich.panel import Panel
from rich.text import Text

from cli.output import Output, console, plain
from vault.errors import IntegrityError, Unavailable, VaultError

_POLL_SECONDS: Final = 0.2
_WIDTH: Final = 100


class ClaimFailed(IntegrityError):
    """The demo checked a claim, and it was false."""


class Narrator:
    """Prints one run of the demo; counts steps and claims."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._screen = console()
        self._step = 0
        self._claims = 0
        self._began = time.monotonic()

    def opening(self, text: str) -> None:
        """Print the introduction."""
        if self._out.as_json:
            self._out.line({"event": "started"})
        else:
            self._screen.print(Panel(Text(text), title="callvault demo", width=_WIDTH), soft_wrap=False)

    def step(self, title: str, text: str) -> None:
        """Begin a numbered step and print what is about to happen and why it matters."""
        self._step += 1
        if self._out.as_json:
            self._out.line({"event": "step", "step": self._step, "title": title})
            return
        self._screen.print()
        self._screen.print(Text(f"{self._step:2}  {title}", style="bold"))
        self._screen.print(Text(f"    {text}", style="dim"))

    def prove(self, truth: bool, claim: str, **evidence: str | int) -> None:
        """Print a claim that was found true, with its evidence; ClaimFailed, which ends the demo, if it is false."""
        if not truth:
            raise ClaimFailed(f"step {self._step}: this claim is false: {claim}", hint=None, **evidence)
        self._claims += 1
        if self._out.as_json:
            self._out.line({"event": "proven", "step": self._step, "claim": claim, "evidence": evidence})
            return
        shown = ", ".join(f"{name.replace('_', ' ')} {plain(value)}" for name, value in evidence.items())
        mark = Text("    ✓ ", style="green") + Text(claim)
        self._screen.print(mark + Text(f"  ({shown})", style="dim") if shown else mark)

    async def refused(
        self, attempt: Awaitable[object], kind: type[VaultError], claim: str, **evidence: str | int
    ) -> VaultError:
        """Prove that an attempt is refused for the reason expected and return the refusal."""
        try:
            await attempt
        except kind as refusal:
            self.prove(type(refusal) is kind, claim, **evidence, answer=refusal.message)
            return refusal
        raise ClaimFailed(f"step {self._step}: it was allowed, yet: {claim}")

    async def wait(self, reason: str, until: Callable[[], Awaitable[bool]], *, limit_seconds: float) -> None:
        """Wait visibly for an expected event; Unavailable after `limit_seconds`."""
        deadline = time.monotonic() + limit_seconds
        with self._screen.status("", spinner="dots") as status:
            while not await until():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Unavailable(f"not within {limit_seconds:.0f} seconds: {reason}")
                if not self._out.as_json:
                    status.update(Text(f"  {reason}"))
                await asyncio.sleep(_POLL_SECONDS)

    async def countdown(self, reason: str, seconds: float) -> None:
        """Wait for the clock, counting down."""
        end = time.monotonic() + seconds
        with self._screen.status("", spinner="dots") as status:
            while (left := end - time.monotonic()) > 0:
                if not self._out.as_json:
                    status.update(Text(f"  {reason}: {left:.0f} s"))
                await asyncio.sleep(min(_POLL_SECONDS, left))

    def closing(self, text: str) -> None:
        """Print the summary."""
        seconds = round(time.monotonic() - self._began, 1)
        if self._out.as_json:
            self._out.line({"event": "done", "steps": self._step, "claims": self._claims, "seconds": seconds})
            return
        self._screen.print()
        summary = f"{self._claims} claims proven in {self._step} steps and {seconds:.0f} seconds.\n\n{text}"
        self._screen.print(Panel(Text(summary), title="done", width=_WIDTH), soft_wrap=False)

    def failed(self, error: VaultError, evidence: str) -> None:
        """Print at which step the demo ended and where the evidence is."""
        if self._out.as_json:
            facts = {"event": "failed", "step": self._step, "error": error.message, "directory": evidence}
            self._out.line(facts | {"evidence": error.facts})
        else:
            self._screen.print(Text(f"    ✗ {error.message}", style="bold red"))
        self._out.note(f"everything the demo made is kept in {evidence}")
