"""How long a call lasted and when it ended, which is not when its recording came to an end here."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from vault.media.descriptor import SAMPLE_BYTES
from vault.model import Container, Media, Recording

_WAV_HEAD: Final = 44
"""The head of almost every WAV, where its own was not kept or does not open."""
_AS_IT_WAS_SPOKEN: Final = timedelta(minutes=1)
"""A recorder that states an earlier start than this before the receipt sends what was recorded before."""
_FASTEST: Final = 40_000
"""Bytes a second of the fastest MP3: what came faster was a file, and did not come as it was spoken."""


def lasted(
    media: Media,
    audio_bytes: int,
    *,
    samples_bytes: int | None = None,
    missing: timedelta,
    started_at: datetime,
    created_at: datetime,
    finished_at: datetime,
) -> timedelta | None:
    """Return how long the call lasted: what was kept of it and what is `missing` in gaps and pauses.

    Samples tell it by their number: `samples_bytes` are those of a WAV whose head is known. A container whose samples
    cannot be counted tells nothing: if it came as it was spoken, the call lasted as long as it came, else nobody knows
    (None).
    """
    width = SAMPLE_BYTES.get(media.codec, 0) * media.rate * media.channels
    if width and media.container in (Container.RAW, Container.WAV):
        if samples_bytes is None:
            samples_bytes = max(audio_bytes - (_WAV_HEAD if media.container is Container.WAV else 0), 0)
        return timedelta(milliseconds=samples_bytes * 1000 // width) + missing
    took = max(finished_at - started_at, timedelta(0))
    if started_at < created_at - _AS_IT_WAS_SPOKEN or audio_bytes > _FASTEST * max(took.total_seconds(), 1):
        return None
    return took


def call_ended(row: Recording) -> datetime | None:
    """Return when the call ended: None while it is recorded, and where that is not known.

    Never after the recording was whole: a call whose start nobody stated began before its receipt.
    """
    if row.ended_at is None or row.lasted is None:
        return None
    return row.started_at + min(row.lasted, row.ended_at - row.started_at)
