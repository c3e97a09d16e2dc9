"""What is decided about a bucket without asking one."""

import pytest

from vault.errors import ConfigError
from vault.storage.s3.bucket import check, connect, provision, region_finding, uploads_finding
from vault.storage.s3.client import S3Settings

CREDENTIALS = {"access_key": "a", "secret_key": "s"}


@pytest.mark.parametrize(
    ("endpoint", "secure", "url"),
    [
        (None, True, None),
        ("https://s3.example.org", False, "https://s3.example.org"),
        ("http://127.0.0.1:9000", True, "http://127.0.0.1:9000"),
        ("s3.example.org:9000", True, "https://s3.example.org:9000"),
        ("127.0.0.1:9000", False, "http://127.0.0.1:9000"),
    ],
)
def test_a_scheme_in_the_endpoint_wins_over_secure(endpoint, secure, url):
    assert S3Settings(bucket="b", endpoint=endpoint, secure=secure).endpoint_url == url


@pytest.mark.parametrize("endpoint", ["ftp://host", "https://host/path", "https://", "http:///x"])
def test_an_endpoint_that_is_no_address_is_a_configuration_error(endpoint):
    settings = S3Settings(bucket="b", endpoint=endpoint, **CREDENTIALS)
    with pytest.raises(ConfigError, match=r"objects\.s3\.endpoint"):
        connect(settings)
    assert [finding.level for finding in check(settings)] == ["error"]


def test_no_bucket_is_made_outside_the_allowed_regions():
    # Nothing listens at the endpoint: the refusal comes before the first request.
    settings = S3Settings(
        bucket="b", endpoint="http://127.0.0.1:1", region="us-east-1", allowed_regions=("eu-west-2",), **CREDENTIALS
    )
    with pytest.raises(ConfigError, match="us-east-1"):
        provision(settings)


@pytest.mark.parametrize(
    ("reported", "allowed", "endpoint", "level"),
    [
        ("eu-west-2", ("eu-west-2",), None, "ok"),
        (None, ("us-east-1",), None, "ok"),
        ("", ("us-east-1",), None, "ok"),
        ("EU", ("eu-west-1",), None, "ok"),
        ("us-east-1", ("eu-west-2", "eu-west-1"), None, "error"),
        (None, ("eu-west-2",), None, "error"),
        (None, ("eu-west-2",), "https://store.example", "warning"),
        ("us-east-1", (), None, "error"),
    ],
)
def test_a_region_outside_the_allowed_is_an_error_where_regions_are_places(reported, allowed, endpoint, level):
    settings = S3Settings(bucket="b", endpoint=endpoint, allowed_regions=allowed)
    assert region_finding(settings, reported).level == level


def test_abandoned_uploads_are_reported():
    assert uploads_finding(0).level == "ok"
    assert uploads_finding(3).level == "warning"


def test_no_credential_is_shown_when_settings_are_printed():
    assert "hunter2" not in repr(S3Settings(bucket="b", access_key="a", secret_key="hunter2"))
