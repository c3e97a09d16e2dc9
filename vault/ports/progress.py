"""How long work says where it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Somebody who watches; an implementation returns at once."""

    def begin(self, step: str, total: int | None) -> None:
        """A step begins, which ends the one before; `total` counts what `advance` counts, None if nobody knows yet."""

    def advance(self, count: int) -> None:
        """So much more of the step is done: bytes, or recordings."""


class Silent:
    """Nobody watches."""

    def begin(self, step: str, total: int | None) -> None:
        """Do nothing."""

    def advance(self, count: int) -> None:
        """Do nothing."""
