"""Frames of a live call that cannot be read: each is left out, and too many of them end the connection.

One broken frame is no reason to lose a call. If most frames are broken, the recorder gets an error and what could be
read is kept.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vault.errors import Invalid

MOST: Final = 100
"""By how many the broken frames may exceed the sound ones at any time."""


class Broken(enum.StrEnum):
    """Why a frame was left out."""

    FORM = "form"
    """It is not a message of its protocol."""
    MEMBER = "member"
    """A member is missing, or its value does not fit its name."""
    TRACK = "track"
    """Its track or kind of audio was not announced."""
    PAYLOAD = "payload"
    """Its audio cannot be decoded, or ends within a sample."""
    LATE = "late"
    """It was repeated, or came after its place in the audio was filled."""
    ORDER = "order"
    """It is out of order or repeated."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A frame was left out; nothing of it is kept."""

    why: Broken


class Breakage:
    """Counts the broken frames of one connection. The reader increments `sound` for each sound frame."""

    def __init__(self) -> None:
        self.sound = 0
        self._weight = 0

    def left_out(self, why: Broken) -> Sequence[LeftOut]:
        """Count a broken frame and return its event; Invalid if broken frames exceed sound ones by more than MOST."""
        self._weight = max(self._weight - self.sound, 0) + 1
        self.sound = 0
        if self._weight > MOST:
            raise Invalid(
                f"more than {MOST} frames could not be read (the last: {why.value}); what could be is kept",
                hint="check what is between the recorder and the vault, and the recorder's version",
            )
        return (LeftOut(why),)
