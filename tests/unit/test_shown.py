"""A decision states the `shown` digest."""

import pytest

from vault.access.two_people import check_shown, shown_digest
from vault.errors import ChangedSince, Invalid


def test_the_digest_is_that_of_the_canonical_document_whatever_its_order() -> None:
    one = {"contract_end": "2099-01-01T00:00:00Z", "recordings": 3}
    other = {"recordings": 3, "contract_end": "2099-01-01T00:00:00Z"}
    assert shown_digest(one) == shown_digest(other)
    check_shown(shown_digest(one), {**other, "shown": "itself"})


def test_any_change_of_what_was_shown_is_refused() -> None:
    seen = shown_digest({"contract_end": "2099-01-01T00:00:00Z"})
    with pytest.raises(ChangedSince, match="not the one that was shown"):
        check_shown(seen, {"contract_end": "2001-01-01T00:00:00Z"})


def test_nobody_approves_unseen() -> None:
    with pytest.raises(Invalid, match="states the `shown` digest"):
        check_shown(None, {"contract_end": "2001-01-01T00:00:00Z"})
