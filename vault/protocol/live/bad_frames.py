"""Frames of a live call that cannot be read: each is left out, and a storm of them ends the connection.

One broken frame is no reason to lose a call. A connection of which most frames are broken is none that records: its
recorder is told so, and what came is kept.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vault.errors import Invalid

MOST: Final = 100
"""How many more broken frames than sound ones may have come at any time."""


class Broken(enum.StrEnum):
    """Why a frame was left out."""

    FORM = "form"
    """It is no message of its protocol."""
    MEMBER = "member"
    """A member is missing, or is not what its name says."""
    TRACK = "track"
    """It is of a track or a kind of audio that was not announced."""
    PAYLOAD = "payload"
    """Its audio cannot be decoded, or ends within a sample."""
    LATE = "late"
    """It came twice, or after its place in the audio had been given up."""
    ORDER = "order"
    """It does not come next; an ordered message is acted upon all the same, a repeated one is not."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A frame could not be used, and nothing of it was kept."""

    why: Broken


class Breakage:
    """What one connection's frames were like. `sound` is counted up by whoever reads one."""

    def __init__(self) -> None:
        self.sound = 0
        self._weight = 0

    def left_out(self, why: Broken) -> Sequence[LeftOut]:
        """Note a broken frame; Invalid if so many came that the recorder cannot mean it."""
        self._weight = max(self._weight - self.sound, 0) + 1
        self.sound = 0
        if self._weight > MOST:
            raise Invalid(
                f"more than {MOST} frames could not be read (the last: {why.value}); what could be is kept",
                hint="look at what stands between the recorder and the vault, and at the recorder's version",
            )
        return (LeftOut(why),)
