"""The stretches of time that a list by size or duration reads."""

import pytest

from vault.storage.catalog.recording_sql import stretches
from vault.storage.catalog.rows import DAY


@pytest.mark.parametrize(
    ("days", "most", "expected"),
    [
        ([], 3, []),
        ([5], 3, [(5, 6)]),
        ([5, 4, 3], 3, [(3, 6)]),
        ([9, 8, 5, 1, -3], 9, [(8, 10), (5, 6), (1, 2), (-3, -2)]),
        ([9, 7, 2, 1], 2, [(7, 10), (1, 3)]),
        ([9, 7, 2, 1], 1, [(1, 10)]),
    ],
)
def test_days_are_read_in_stretches_with_the_widest_gaps_left_out(days, most, expected):
    assert stretches(days, most) == [(first * DAY, end * DAY) for first, end in expected]
