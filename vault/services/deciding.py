"""Finds out who asked, for decisions that two people make."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from vault.ids import TokenId
from vault.ports.catalog import Catalog
from vault.protocol.deciders import AskedSinceError, Asker, Decider

Decided = TypeVar("Decided")


async def with_asker(
    catalog: Catalog, asked_by: Callable[[], Awaitable[str | None]], decide: Callable[[Asker], Awaitable[Decided]]
) -> Decided:
    """Return what `decide` does with whoever asked; it looks again if somebody else has asked since."""
    while True:
        token = await asked_by()
        found = None if token is None else await catalog.token(TokenId(token))
        try:
            return await decide(Asker(token=token, decider=None if found is None else Decider.of(found)))
        except AskedSinceError:
            continue
