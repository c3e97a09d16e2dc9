"""Review dates of holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.helpers.retention import hold
from vault.errors import Conflict, Invalid
from vault.instants import rfc3339
from vault.model import HoldKind, HoldState
from vault.retention.decide import (
    check_not_sooner,
    check_release,
    check_review,
    review_overdue,
    suggest_review,
)

CALL = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
LATEST = datetime(2027, 3, 1, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize("kind", HoldKind)
def test_a_review_date_lies_ahead(kind: HoldKind) -> None:
    assert check_review(NOW + timedelta(days=1), kind, now=NOW) == NOW + timedelta(days=1)
    for unusable in (NOW, NOW - timedelta(days=1)):
        with pytest.raises(Invalid):
            check_review(unusable, kind, now=NOW)


def test_only_a_clients_wish_ends_with_the_cap() -> None:
    beyond = LATEST + timedelta(microseconds=1)
    assert check_review(LATEST, HoldKind.CLIENT_REQUEST, now=NOW, latest=LATEST) == LATEST
    with pytest.raises(Invalid):
        check_review(beyond, HoldKind.CLIENT_REQUEST, now=NOW, latest=LATEST)
    for kind in (HoldKind.LEGAL, HoldKind.REGULATORY, HoldKind.SAFEGUARDING):
        assert check_review(beyond, kind, now=NOW, latest=LATEST) == beyond


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (HoldKind.LEGAL, datetime(2032, 3, 1, 9, 30, tzinfo=UTC)),
        (HoldKind.REGULATORY, datetime(2031, 3, 1, 9, 30, tzinfo=UTC)),
        (HoldKind.SAFEGUARDING, datetime(2027, 6, 1, tzinfo=UTC)),
        (HoldKind.CLIENT_REQUEST, datetime(2027, 3, 1, 9, 30, tzinfo=UTC)),
    ],
)
def test_a_suggested_review_follows_the_kind(kind: HoldKind, expected: datetime) -> None:
    assert suggest_review(kind, now=NOW, call_started=CALL, latest=LATEST) == expected


@pytest.mark.parametrize("kind", HoldKind)
@pytest.mark.parametrize("age", [timedelta(0), timedelta(days=800), timedelta(days=365 * 20)])
def test_what_is_suggested_is_acceptable_unless_the_cap_has_ended(kind: HoldKind, age: timedelta) -> None:
    latest = NOW - age + timedelta(days=365)
    suggested = suggest_review(kind, now=NOW, call_started=NOW - age, latest=latest)
    if kind is HoldKind.CLIENT_REQUEST and latest < NOW:
        with pytest.raises(Invalid):
            check_review(suggested, kind, now=NOW, latest=latest)
    else:
        assert check_review(suggested, kind, now=NOW, latest=latest) == suggested


def test_a_review_is_overdue_only_while_the_hold_is_in_force() -> None:
    item = hold()
    assert not review_overdue(item, now=item.review_at - timedelta(microseconds=1))
    assert review_overdue(item, now=item.review_at)
    assert not review_overdue(replace(item, state=HoldState.RELEASED), now=item.review_at)


def test_a_regulatory_hold_is_a_minimum_that_nobody_shortens():
    for kind in HoldKind:
        placed = replace(hold(), kind=kind, review_at=NOW + timedelta(days=9))
        check_release(placed, now=NOW + timedelta(days=9))
        check_not_sooner(placed, NOW + timedelta(days=9))
        exact = replace(placed, review_at=NOW + timedelta(days=9, microseconds=1))
        check_not_sooner(exact, datetime.fromisoformat(rfc3339(exact.review_at)))
        for early in (
            lambda placed=placed: check_release(placed, now=NOW + timedelta(days=8)),
            lambda placed=placed: check_not_sooner(placed, NOW + timedelta(days=8)),
        ):
            if kind is HoldKind.REGULATORY:
                with pytest.raises(Conflict, match="minimum set by law"):
                    early()
            else:
                early()
