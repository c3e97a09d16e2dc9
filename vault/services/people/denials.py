"""Writes down who was refused: the first denial of a kind at once, and what repeats it as one counted entry.

A kind is a token, an act and a reason: whoever tries id after id repeats itself. Order: the entry of the first is
durable before the refusal is answered; repeats are counted in memory, and their entry is written when the window ends
or the server is shut down in order. A crash loses the counts of the windows that are open, never a first entry.
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
"""How long repeats of a denial are counted before they are written."""
MOST_KINDS: Final = 256
"""How many kinds of one tenant are told apart at a time; what goes beyond is counted together, also in a window."""
_ROUND_SECONDS: Final = 5.0

_Kind = tuple[TokenId, Act, Why]

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _Window:
    """What repeats one kind of denial, or with `actor` None many kinds of one tenant."""

    tenant: TenantId | None
    actor: Principal | None
    what: Mapping[str, str]
    until: float
    tally: Tally

    def event(self) -> AuditEvent:
        detail: dict[str, Any] = {**self.what, **self.tally.document()}
        return event("access.denied", self.actor, outcome="refused", tenant=self.tenant, detail=detail)


class Denials:
    """The one writer of `access.denied`.

    A tenant's storm takes memory, and writes entries, up to that tenant's bound: nobody else's first denial waits for
    room.
    """

    def __init__(self, *, catalog: AuditTrail, surroundings: Surroundings) -> None:
        self._catalog = catalog
        self._clock = surroundings.clock
        self._count = surroundings.metrics.denials
        self._open: dict[TenantId | None, dict[_Kind | None, _Window]] = {}

    async def write(self, actor: Principal, act: Act, target: str | None, why: Why) -> None:
        """Return once the denial is durable, or counted because it repeats another one.

        One that cannot be written is counted too, and Unavailable is raised.
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
            window, _ = self._window(actor, act, why)  # the one that was opened may have ended meanwhile
            self._add(window, actor, act, target)
            raise

    def _window(self, actor: Principal, act: Act, why: Why) -> tuple[_Window, bool]:
        """Return the window in which such a denial is counted, and whether it has just been opened."""
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
        """Write what was counted in windows that have ended, until cancelled; then what was counted in all."""
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

        What cannot be written stays counted, so that an entry whose commit had no answer may come twice.
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
