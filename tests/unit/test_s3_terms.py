"""What an S3 write asks for beside storing."""

from datetime import UTC, datetime, timedelta

import pytest

from vault.errors import Invalid
from vault.protocol.s3.requests import Terms, terms

NOW = datetime(2026, 11, 30, tzinfo=UTC)
LATER = "2033-01-31T00:00:00Z"
LOCK = "X-Amz-Object-Lock-"


def asked(begins=True, **said):
    headers = [(name.replace("_", "-"), value) for name, value in said.items()]
    return terms(headers, begins=begins, now=NOW)


def code(begins=True, **said):
    with pytest.raises(Invalid) as caught:
        asked(begins, **said)
    assert "nothing was kept" in caught.value.message
    return caught.value.facts["s3"]


def lock(**named):
    return {LOCK + name: value for name, value in named.items()}


def test_a_lock_is_what_its_headers_say():
    assert asked() == asked(**lock(Legal_Hold="OFF")) == Terms()
    assert asked(**lock(Legal_Hold="ON")) == Terms(legal_hold=True)
    until = datetime(2033, 1, 31, tzinfo=UTC)
    for spelt in (LATER, "2033-01-31T01:00:00.000+01:00"):
        assert asked(**lock(Mode="GOVERNANCE", Retain_Until_Date=spelt)) == Terms(keep_until=until)


def test_a_lock_that_would_not_be_kept_to_is_refused():
    past = (NOW - timedelta(seconds=1)).isoformat()
    for said, expected in (
        (lock(Legal_Hold="on"), "InvalidArgument"),
        (lock(Mode="GOVERNANCE"), "InvalidArgument"),
        (lock(Retain_Until_Date=LATER), "InvalidArgument"),
        (lock(Mode="WISHFUL", Retain_Until_Date=LATER), "InvalidArgument"),
        (lock(Mode="COMPLIANCE", Retain_Until_Date=LATER), "NotImplemented"),
        (lock(Mode="GOVERNANCE", Retain_Until_Date="2033-01-31"), "InvalidArgument"),
        (lock(Mode="GOVERNANCE", Retain_Until_Date="2033-01-31T00:00:00"), "InvalidArgument"),
        (lock(Mode="GOVERNANCE", Retain_Until_Date=past), "InvalidArgument"),
        (lock(Event_Hold="ON"), "NotImplemented"),
    ):
        assert code(**said) == expected, said
    assert code(begins=False, **lock(Legal_Hold="ON")) == "InvalidRequest"


def test_a_condition_is_kept_to_or_refused():
    assert asked(If_None_Match="*") == Terms(only_new=True)
    for said in (
        {"If_None_Match": '"etag"'},
        {"If_Match": '"etag"'},
        {"x_amz_write_offset_bytes": "0"},
        {"x_amz_server_side_encryption_customer_algorithm": "AES256"},
    ):
        assert code(**said) == "NotImplemented", said
