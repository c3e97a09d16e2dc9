"""When audio that exists falls due by a change of its retention."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.helpers.retention import CLOCKS, RECORDING
from vault.model import Part, Recording, RecordingState, RetentionChange
from vault.retention.decide import falls_due
from vault.retention.periods import parse_period
from vault.retention.policy import changed_until, covers, expiry_period, metadata_period

RECEIVED = datetime(2026, 1, 31, 9, tzinfo=UTC)
DAY = timedelta(days=1)


def call(
    started: datetime = RECEIVED, *, kept: str = "90d", imported: bool = False, received: datetime = RECEIVED
) -> Recording:
    counted = started if imported else max(started, received - 7 * DAY)
    until = parse_period(kept).after(counted)
    row = RECORDING
    return replace(
        row,
        started_at=started,
        created_at=received,
        retain_until=until,
        retention_period=kept,
        audio=replace(row.audio, cohort=replace(row.audio.cohort, period=expiry_period(until, CLOCKS.cohort_width))),
        metadata=replace(row.metadata, cohort=replace(row.metadata.cohort, period=metadata_period(received))),
    )


def change(retention: str, *, since: datetime = RECEIVED, through: datetime = RECEIVED + DAY) -> RetentionChange:
    return RetentionChange(
        request="pol_1",
        through=through,
        retention=retention,
        since=since,
        floor="1d",
        backdating_seconds=(7 * DAY).total_seconds(),
    )


@pytest.mark.parametrize(
    ("retention", "until"),
    [
        ("180d", RECEIVED + 180 * DAY),
        ("30d", RECEIVED + 30 * DAY),
        ("1mo", datetime(2026, 2, 28, 9, tzinfo=UTC)),
        ("7y", datetime(2033, 1, 31, 9, tzinfo=UTC)),
    ],
)
def test_a_changed_retention_counts_from_what_the_captured_one_counted_from(retention: str, until: datetime) -> None:
    one = call()
    assert changed_until(one, change(retention), captured=one.retain_until) == until


def test_a_stated_start_counts_as_it_did_at_capture_and_an_import_by_its_true_date() -> None:
    old = RECEIVED - 400 * DAY
    stated, imported = call(old), call(old, kept="3y", imported=True)
    assert changed_until(stated, change("180d"), captured=stated.retain_until) == RECEIVED + 173 * DAY
    assert changed_until(imported, change("5y"), captured=imported.retain_until) == parse_period("5y").after(old)
    # What is over by its true date is kept for the floor after its receipt, as at capture, and then for the notice.
    since = RECEIVED + 60 * DAY
    assert changed_until(imported, change("90d", since=since), captured=imported.retain_until) == since


def test_what_becomes_shorter_is_due_when_the_notice_has_ended_and_never_later_than_captured() -> None:
    one = call()
    for since, due in ((RECEIVED + 60 * DAY, RECEIVED + 60 * DAY), (RECEIVED + 95 * DAY, one.retain_until)):
        assert changed_until(one, change("30d", since=since), captured=one.retain_until) == due
    later = change("180d", since=RECEIVED + 365 * DAY)
    assert changed_until(one, later, captured=one.retain_until) == RECEIVED + 180 * DAY


def test_a_change_is_for_what_was_captured_before_it_was_decided() -> None:
    one = call()
    assert covers(change("30d", through=RECEIVED), one)
    assert not covers(change("30d", through=RECEIVED - timedelta(microseconds=1)), one)
    clocks = replace(CLOCKS, retention_changed=change("30d", through=RECEIVED - DAY))
    assert falls_due(one, Part.AUDIO, clocks) == falls_due(one, Part.AUDIO, CLOCKS)


def test_longer_audio_takes_its_metadata_along_and_shorter_audio_leaves_it_where_it_was() -> None:
    one = call()
    clocks = replace(CLOCKS, metadata_retention=parse_period("1d"))
    captured = falls_due(one, Part.METADATA, clocks)
    assert captured == falls_due(one, Part.AUDIO, clocks)
    longer = replace(clocks, retention_changed=change("180d"))
    assert falls_due(one, Part.METADATA, longer) == falls_due(one, Part.AUDIO, longer) == RECEIVED + 180 * DAY
    shorter = replace(clocks, retention_changed=change("30d"))
    assert falls_due(one, Part.AUDIO, shorter) == RECEIVED + 30 * DAY
    assert falls_due(one, Part.METADATA, shorter) == captured
    gone = replace(one, state=RecordingState.SHREDDED)
    assert falls_due(gone, Part.METADATA, shorter) == captured, "also when its audio is gone"


def test_what_was_agreed_at_capture_stays_known() -> None:
    one = call()
    clocks = replace(CLOCKS, retention_changed=change("30d"))
    assert falls_due(one, Part.AUDIO, clocks.as_captured) == falls_due(one, Part.AUDIO, CLOCKS)
