"""Logs denials: the first of a kind at once, repetitions as one counted entry.

A kind is a token, an act and a reason, so trying id after id is repetition. Order: the first entry is durable before
the refusal is answered. Repetitions are counted in memory, and their entry is written when the window ends or the
server stops in order. A crash loses the counts of open windows, never a first entry.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from vault.access.permissions import Act, Why
from vault.access.tally import Tally
from vault.errors import VaultError
from vault.ids import TenantId, TokenId
from vault.model import AuditEvent, Principal
from vault.ports.audit import AuditTrail
from vault.services.audit import event
from vault.services.surroundings import Surroundings

WINDOW_SECONDS: Final = 60.0
"""How many seconds repetitions of a denial are counted before they are written."""
MOST_KINDS: Final = 256
"""How many kinds of one tenant are counted separately at a time; more are counted together."""
_ROUND_SECONDS: Final = 5.0

_Kind = tuple[TokenId, Act, Why]

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _Window:
    """Repetitions of one kind of denial, or with `actor` None of several kinds of one tenant."""

    tenant: TenantId | None
    actor: Principal | None
    what: Mapping[str, str]
    until: float
    tally: Tally

    def event(self) -> AuditEvent:
        detail: dict[str, Any] = {**self.what, **self.tally.document()}
        return event("access.denied", self.actor, outcome="refused", tenant=self.tenant, detail=detail)


class Denials:
    """Writes all `access.denied` entries.

    Each tenant has a bound on memory and entries, so that one tenant's many denials delay no other tenant's first one.
    """

    def __init__(self, *, catalog: AuditTrail, surroundings: Surroundings) -> None:
        self._catalog = catalog
        self._clock = surroundings.clock
        self._count = surroundings.metrics.denials
        self._open: dict[TenantId | None, dict[_Kind | None, _Window]] = {}

    async def write(self, actor: Principal, act: Act, target: str | None, why: Why) -> None:
        """Return once the denial is durable, or counted as a repetition.

        A denial that cannot be written is counted too, and Unavailable is raised.
        """
        self._count.labels(why.value).inc()
        window, first = self._window(actor, act, why)
        if not first:
            self._add(window, actor, act, target)
            return
        entry = event("access.denied", actor, outcome="refused", target=target, detail=_what(act, why))
        try:
            await self._catalog.append_audit([entry])
        except BaseException:
            window, _ = self._window(actor, act, why)  # the opened window may have ended meanwhile
            self._add(window, actor, act, target)
            raise

    def _window(self, actor: Principal, act: Act, why: Why) -> tuple[_Window, bool]:
        """Return the window that counts this denial, and whether it was just opened."""
        windows = self._open.setdefault(actor.tenant, {})
        kind: _Kind | None = (actor.token_id, act, why)
        if kind not in windows and len(windows) >= MOST_KINDS:
            kind = None
        if kind in windows:
            return windows[kind], False
        windows[kind] = _Window(
            tenant=actor.tenant,
            actor=None if kind is None else actor,
            what={} if kind is None else _what(act, why),
            until=self._clock.monotonic() + WINDOW_SECONDS,
            tally=Tally("targets") if kind is not None else Tally("targets", "tokens", "acts"),
        )
        return windows[kind], True

    def _add(self, window: _Window, actor: Principal, act: Act, target: str | None) -> None:
        window.tally.add(self._clock.now(), targets=target, tokens=actor.token_id, acts=act.value)

    async def run(self) -> None:
        """Write the counts of windows that have ended, until cancelled; then those of all windows."""
        try:
            while True:
                await asyncio.sleep(_ROUND_SECONDS)
                try:
                    await self.settle(until=self._clock.monotonic())
                except VaultError as error:
                    logger.warning("counted denials wait to be written", extra={"fields": {"error": error.code}})
        finally:
            with suppress(VaultError):
                await self.settle()

    async def settle(self, *, until: float = math.inf) -> None:
        """End the windows whose time is up by `until`, or all: write one entry for each that counted anything.

        Counts that cannot be written are kept, so an entry whose commit had no answer may be written twice.
        """
        ended = [
            (kind, window)
            for windows in self._open.values()
            for kind, window in windows.items()
            if window.until <= until
        ]
        for kind, window in ended:
            del self._open[window.tenant][kind]
        counted = [(kind, window) for kind, window in ended if window.tally.count]
        try:
            await self._catalog.append_audit([window.event() for _, window in counted])
        except BaseException:
            for kind, window in counted:
                anew = self._open[window.tenant].setdefault(kind, window)
                if anew is not window:
                    anew.tally.merge(window.tally)
            raise


def _what(act: Act, why: Why) -> Mapping[str, str]:
    return {"act": act.value, "why": why.value}
