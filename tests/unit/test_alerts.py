"""What an alert says, how it is signed, and when it is sent again."""

import base64
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tests.helpers import certificates as samples
from vault.crypto.signing import SigningKey
from vault.errors import Invalid
from vault.ids import HoldId, TokenId
from vault.model import Principal, Role
from vault.protocol.webhook import (
    FlagCategory,
    checked_webhook,
    flagged_body,
    origin_of,
    pause_after,
    signed_headers,
)

AT = datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
KEY = SigningKey(bytes(range(32)))


def test_pauses_double_up_to_an_hour_and_are_spread_over_half_their_length():
    longest = [pause_after(attempts, share=1.0) for attempts in range(1, 40)]
    assert longest[:4] == [timedelta(seconds=seconds) for seconds in (1, 2, 4, 8)]
    assert all(later in (2 * earlier, timedelta(hours=1)) for earlier, later in pairwise(longest))
    assert longest[-1] == timedelta(hours=1)
    assert pause_after(3, share=0.0) == timedelta(seconds=2)
    assert pause_after(10**9, share=1.0) == timedelta(hours=1)


@pytest.mark.parametrize(
    "url",
    [
        "https://alerts.example.org/a?b=c",
        "https://[2001:db8::1]:8443/",
        "http://127.0.0.1:1/x",
        "http://[::1]/",
        "http://localhost",
    ],
)
def test_an_address_is_kept_as_it_was_written(url):
    assert checked_webhook(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "alerts.example.org",
        "http://alerts.example.org",
        "http://127.0.0.1.example.org/",
        "https://",
        "https://user@alerts.example.org",
        "https://@alerts.example.org",
        "https://alerts.example.org/\r\nx: y",
        "https://alerts.example.org/ünder",
        "https://alerts.example.org/" + "x" * 2000,
        "javascript:alert(1)",
        "file:///etc/passwd",
    ],
)
def test_an_address_that_is_not_private_or_not_one_is_refused(url):
    with pytest.raises(Invalid):
        checked_webhook(url)


def test_only_the_origin_of_an_address_is_shown():
    assert origin_of("https://alerts.example.org:8443/s3cret?k=s3cret") == "https://alerts.example.org:8443"
    assert origin_of(None) is None


def test_a_message_is_signed_over_id_timestamp_and_body_as_standard_webhooks_says():
    headers = signed_headers("msg_1", b'{"a":1}', at=AT, sign=KEY.sign)
    assert headers["webhook-timestamp"] == "1780315200"
    version, signature = headers["webhook-signature"].split(",")
    assert version == "v1a"
    KEY.public.verify(base64.b64decode(signature, validate=True), b'msg_1.1780315200.{"a":1}')


def test_the_body_has_ids_and_a_category_and_is_the_same_whenever_it_is_made():
    row = samples.recording()
    actor = Principal(token_id=TokenId("tok_" + "0" * 32), name="assistant", role=Role.RECORDER, tenant=row.tenant)
    hold = HoldId("hold_" + "1" * 32)
    bodies = {flagged_body(row, hold, category=FlagCategory.THREAT, actor=actor, live=True, at=AT) for _ in range(3)}
    (body,) = bodies
    said = json.loads(body)
    assert said["timestamp"] == said["data"]["flagged_at"] == "2026-06-01T12:00:00.123Z"
    assert said["data"]["link"] == f"/v1/recordings/{row.id}"
    assert said["data"]["flagged_by"] == {"role": "recorder", "token_name": "assistant"}
    assert "tok_" not in body
