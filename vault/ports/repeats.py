"""Requests that carry an Idempotency-Key, and the evidence of what one request has made durable.

The evidence is written by the transaction that takes effect, never before or after it. So whoever finds a request
without an answer knows whether it took effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from vault.ids import TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """One request under a key. `key` and `request` are SHA-256 digests in hex; `attempt` names who carries it out.

    `until`: another may carry it out from then on, unless it has ended. `effect`: something of it is durable, of which
    `target` is the id. `status` and `answer` (sealed) are there once it has ended.
    """

    token: TokenId
    key: str
    request: str
    attempt: str
    created_at: datetime
    until: datetime
    effect: bool = False
    target: str | None = None
    status: int | None = None
    answer: bytes | None = field(default=None, repr=False)


class KeyedRows(Protocol):
    """Requests under a key."""

    async def claim_request(self, asked: Keyed, *, now: datetime, forget_before: datetime) -> Keyed:
        """Insert `asked`, or take over what was abandoned, and return what is there; forget what is older.

        The claim is the caller's if the returned `attempt` is.
        """

    async def settle_request(self, keyed: Keyed, *, status: int, answer: bytes) -> None:
        """Keep the answer, if the attempt still carries the request out."""

    async def leave_request(self, keyed: Keyed, *, at: datetime) -> None:
        """End the attempt without an answer: forget the request if it had no effect, else let another go on."""


@dataclass(slots=True)
class Effects:
    """What the present request has done: `durable` once anything it asked for may be."""

    keyed: Keyed | None = None
    durable: bool = False


_present: ContextVar[Effects | None] = ContextVar("effects", default=None)


def effects() -> Effects | None:
    """Return what the present request has done, if it is one that acts."""
    return _present.get()


def took_effect() -> None:
    """Note that from here on the present request may have taken effect."""
    present = _present.get()
    if present is not None:
        present.durable = True


@contextmanager
def noting(present: Effects | None) -> Iterator[None]:
    """Note in `present` what is done inside."""
    token = _present.set(present)
    try:
        yield
    finally:
        _present.reset(token)
