"""Assurances in order, for providers that stand for two others."""

from __future__ import annotations

from typing import Final

from vault.model import Assurance

_RISING: Final = (Assurance.BEST_EFFORT, Assurance.DELAYED, Assurance.DEVICE, Assurance.HSM)


def stronger(one: Assurance, other: Assurance) -> Assurance:
    """Return the one that promises more."""
    return max(one, other, key=_RISING.index)


def weaker(one: Assurance, other: Assurance) -> Assurance:
    """Return the one that promises less."""
    return min(one, other, key=_RISING.index)
