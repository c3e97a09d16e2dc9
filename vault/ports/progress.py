"""Progress reports of long work."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives progress reports; an implementation returns at once."""

    def begin(self, step: str, total: int | None) -> None:
        """Report that a step begins and the one before ends; `total` is in the unit of `advance`, None if unknown."""

    def advance(self, count: int) -> None:
        """Report that `count` more bytes or recordings of the step are done."""


class Silent:
    """Ignores progress reports."""

    def begin(self, step: str, total: int | None) -> None:
        """Do nothing."""

    def advance(self, count: int) -> None:
        """Do nothing."""
