"""Writes the log lines of refused requests, on every listener, without call keys, numbers or names; counts a flood.

A kind is a dialect, a problem and the tenant that a credential named. The first few refusals of a kind in a window are
written. When the window ends, one line has the number of the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextvars import Context
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from aiohttp import web

from vault.errors import VaultError

WINDOW_SECONDS: Final = 10.0
LINES: Final = 5
"""How many refusals of one kind are written in a window."""
_MOST_KINDS: Final = 256
"""How many kinds are counted separately at a time; more are counted together."""

_Kind = tuple[str | None, ...]
_OTHERS: Final[_Kind] = ("any", "any", None)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Window:
    lines: int = 0
    more: int = 0
    timer: asyncio.TimerHandle | None = None


class Refusals:
    """The only writer of these lines in a process."""

    def __init__(self) -> None:
        self._windows: dict[_Kind, _Window] = {}

    def note(
        self,
        *,
        status: int,
        problem: str,
        dialect: str,
        tenant: str | None = None,
        token: str | None = None,
        level: int = logging.WARNING,
        facts: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Write or count one refusal; `token` is an id, never a token."""
        kind: _Kind = (dialect, problem, tenant)
        if kind not in self._windows and len(self._windows) >= _MOST_KINDS:
            kind = _OTHERS
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = _Window()
            # In a context of its own, because the line at the end of a window belongs to no single request.
            loop = asyncio.get_running_loop()
            window.timer = loop.call_later(WINDOW_SECONDS, self._end, kind, context=Context())
        if window.lines >= LINES:
            window.more += 1
            return
        window.lines += 1
        fields = {"status": status, "problem": problem, "dialect": dialect, "tenant": tenant, "token": token, **facts}
        logger.log(level, "request refused", extra={"fields": fields})

    def _end(self, kind: _Kind) -> None:
        window = self._windows.pop(kind)
        if window.more:
            dialect, problem, tenant = kind
            fields = {"suppressed": window.more, "problem": problem, "dialect": dialect, "tenant": tenant}
            logger.warning("further requests were refused", extra={"fields": fields})

    async def ended(self, _: object) -> None:
        """Write the counts of all open windows, because the server ends."""
        for kind, window in tuple(self._windows.items()):
            if window.timer is not None:
                window.timer.cancel()
            self._end(kind)


def said_of(failure: VaultError) -> Mapping[str, object]:
    """Return the facts of a failure that may be logged beside its code: its cause, if it is known."""
    return {"cause": failure.facts["cause"]} if "cause" in failure.facts else {}


REFUSALS = web.AppKey("refusals", Refusals)
