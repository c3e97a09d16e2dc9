"""Requests with an Idempotency-Key, and the record of whether a request took effect.

The record is written in the transaction that takes effect. So it also tells of a request without an answer whether it
took effect.
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
    """One request with an Idempotency-Key. `key` and `request` are SHA-256 digests in hex.

    `attempt` identifies the attempt that carries it out. From `until` on another attempt may take over, unless the
    request has ended. `effect` tells whether it made something durable; `target` is the id of that. `status` and
    `answer` (sealed) are set once it has ended.
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
    """The catalog rows of requests with an Idempotency-Key."""

    async def claim_request(self, asked: Keyed, *, now: datetime, forget_before: datetime) -> Keyed:
        """Insert `asked`, or take over an abandoned request with its key, and return the row as it is then.

        The caller has claimed the request if the returned `attempt` is its own. Rows from before `forget_before` are
        removed.
        """

    async def renew_request(self, keyed: Keyed, *, until: datetime) -> None:
        """Keep other attempts from taking over until `until`, if the attempt still carries out the request."""

    async def settle_request(self, keyed: Keyed, *, status: int, answer: bytes) -> None:
        """Store the answer if the attempt still carries out the request."""

    async def leave_request(self, keyed: Keyed, *, at: datetime) -> None:
        """End the attempt without an answer: remove the row if it had no effect, else let another attempt take over."""


@dataclass(slots=True)
class Effects:
    """The effects of the present request; `durable` once they may be durable."""

    keyed: Keyed | None = None
    durable: bool = False


_present: ContextVar[Effects | None] = ContextVar("effects", default=None)


def effects() -> Effects | None:
    """Return the effects of the present request; None if it does not record any."""
    return _present.get()


def took_effect() -> None:
    """Record that the present request may have taken effect."""
    present = _present.get()
    if present is not None:
        present.durable = True


@contextmanager
def recording_effects(present: Effects | None) -> Iterator[None]:
    """Record in `present` the effects of what runs inside."""
    token = _present.set(present)
    try:
        yield
    finally:
        _present.reset(token)
