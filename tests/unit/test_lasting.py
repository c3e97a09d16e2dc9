"""How long a call lasted, and when it ended, from what was kept of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tests.helpers.catalogs import recording
from vault.media.length import call_ended, call_length
from vault.model import Codec, Container, Media

CALL = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
RECEIPT = CALL + timedelta(days=3)
SECOND = timedelta(seconds=1)
G711 = Media(container=Container.RAW, codec=Codec.PCMU, rate=8_000, channels=2)
OPAQUE = Media(container=Container.MP3, codec=Codec.STREAM)


def lasts(media, size, *, start=CALL, received=RECEIPT, took=3 * SECOND, missing=timedelta(0)):
    return call_length(media, size, missing=missing, started_at=start, created_at=received, finished_at=received + took)


def test_samples_tell_how_long_a_call_lasted_however_fast_they_came():
    assert lasts(G711, 16_000 * 90) == 90 * SECOND
    assert lasts(replace(G711, codec=Codec.S16LE, rate=16_000, channels=1), 32_000 * 90) == 90 * SECOND
    assert lasts(replace(G711, container=Container.WAV), 16_000 * 90 + 44) == 90 * SECOND
    assert lasts(replace(G711, container=Container.WAV), 10) == timedelta(0)


def test_a_call_also_lasted_through_what_is_missing_of_it():
    assert lasts(G711, 16_000 * 90, missing=30 * SECOND) == 120 * SECOND


def test_what_came_as_it_was_spoken_lasted_as_long_as_it_came():
    assert lasts(OPAQUE, 1_000, start=RECEIPT - SECOND, took=90 * SECOND) == 91 * SECOND
    assert lasts(OPAQUE, 1_000, start=RECEIPT + timedelta(hours=1), took=SECOND) == timedelta(0)


def test_a_file_that_came_at_once_did_not_come_as_it_was_spoken():
    assert lasts(OPAQUE, 2_000_000, start=RECEIPT, took=SECOND / 20) is None
    assert lasts(OPAQUE, 2_000_000, start=RECEIPT, took=60 * SECOND) == 60 * SECOND


def test_what_came_later_and_has_no_samples_to_count_tells_nothing():
    assert lasts(OPAQUE, 1_000) is None
    assert lasts(replace(G711, container=Container.OGG), 16_000 * 90) is None


def test_the_end_of_a_call_is_not_that_of_its_upload():
    row = recording(started_at=CALL, ended_at=RECEIPT, lasted=90 * SECOND)
    assert call_ended(row) == CALL + 90 * SECOND
    assert call_ended(replace(row, lasted=None)) is None
    assert call_ended(replace(row, ended_at=None)) is None
    assert call_ended(replace(row, lasted=timedelta.max)) == RECEIPT, "gaps that no calendar has room for"
    unstated = replace(row, started_at=RECEIPT - SECOND)
    assert call_ended(unstated) == RECEIPT, "the start was not stated: the call was over when all of it had come"
