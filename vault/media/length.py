"""How long a call lasted and when it ended. Its recording may have been finished later."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from vault.media.descriptor import SAMPLE_BYTES
from vault.model import Container, Media, Recording

_WAV_HEAD: Final = 44
"""The usual size of a WAV header, for a WAV whose own header is not known."""
_LIVE_DELAY: Final = timedelta(minutes=1)
"""A start that lies longer than this before the receipt means that the call was recorded earlier, not live."""
_FASTEST: Final = 40_000
"""Bytes a second of the fastest MP3. Audio that arrives faster is a file, and not live."""


def call_length(
    media: Media,
    audio_bytes: int,
    *,
    samples_bytes: int | None = None,
    missing: timedelta,
    started_at: datetime,
    created_at: datetime,
    finished_at: datetime,
) -> timedelta | None:
    """Return how long the call lasted, in whole milliseconds; None if that is unknown.

    The length of raw samples and WAV follows from their bytes; `samples_bytes` are those of a WAV with a known header.
    What is `missing` in gaps and pauses is added. The samples of other containers cannot be counted: such a call lasted
    as long as it was received if it came live, and otherwise the length is unknown.
    """
    width = SAMPLE_BYTES.get(media.codec, 0) * media.rate * media.channels
    if width and media.container in (Container.RAW, Container.WAV):
        if samples_bytes is None:
            samples_bytes = max(audio_bytes - (_WAV_HEAD if media.container is Container.WAV else 0), 0)
        return timedelta(milliseconds=samples_bytes * 1000 // width) + missing
    took = max(finished_at - started_at, timedelta(0))
    if started_at < created_at - _LIVE_DELAY or audio_bytes > _FASTEST * max(took.total_seconds(), 1):
        return None
    return took


def call_ended(row: Recording) -> datetime | None:
    """Return when the call ended; None while it is being recorded, and if its length is unknown.

    It is not after the end of the recording: a call without a stated start began before its receipt.
    """
    if row.ended_at is None or row.lasted is None:
        return None
    return row.started_at + min(row.lasted, row.ended_at - row.started_at)
