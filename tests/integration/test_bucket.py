"""Provisioning and checking buckets of a real SeaweedFS."""

import dataclasses
from collections.abc import Sequence

import pytest
from minio.commonconfig import ENABLED, GOVERNANCE, Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.objectlockconfig import DAYS, ObjectLockConfig
from minio.versioningconfig import VersioningConfig

from tests.helpers.tcp_proxy import Mode, tcp_proxy
from vault.errors import ConfigError, Unavailable
from vault.model import Finding
from vault.storage.s3.bucket import UPLOAD_RULE, check, connect, provision
from vault.storage.s3.store import S3ObjectStore
from vault.threads import in_thread

pytestmark = pytest.mark.xdist_group("seaweed")


def levels(findings: Sequence[Finding]) -> set[str]:
    return {finding.level for finding in findings}


def text(findings: Sequence[Finding], level: str) -> str:
    return "\n".join(finding.message for finding in findings if finding.level == level)


def test_a_provisioned_bucket_has_nothing_to_complain_of_and_provisioning_can_be_repeated(seaweed):
    settings = seaweed.settings("bucket-plain")
    assert levels(check(settings)) == {"error"}
    for _ in range(2):
        assert levels(provision(settings)) == {"ok"}
    client = connect(settings)
    rules = client.get_bucket_lifecycle(settings.bucket).rules
    assert [rule.rule_id for rule in rules] == [UPLOAD_RULE]
    assert rules[0].abort_incomplete_multipart_upload.days_after_initiation == 1
    assert client.get_bucket_encryption(settings.bucket) is not None


def test_provisioning_keeps_the_rules_and_the_versioning_it_finds(seaweed):
    settings = seaweed.settings("bucket-kept")
    client = connect(settings)
    client.make_bucket(settings.bucket)
    client.set_bucket_versioning(settings.bucket, VersioningConfig(ENABLED))
    theirs = Rule(ENABLED, rule_filter=Filter(prefix="logs/"), rule_id="theirs", expiration=Expiration(days=7))
    client.set_bucket_lifecycle(settings.bucket, LifecycleConfig([theirs]))
    findings = provision(settings)
    assert {rule.rule_id for rule in client.get_bucket_lifecycle(settings.bucket).rules} == {"theirs", UPLOAD_RULE}
    assert "versioning: Enabled" in text(findings, "ok")
    assert "expires objects" in text(findings, "error")


def test_object_lock_is_had_at_creation_and_missing_lock_is_an_error(seaweed):
    plain = seaweed.settings("bucket-unlockable")
    provision(plain)
    wanting = dataclasses.replace(plain, object_lock="compliance")
    assert "no Object Lock" in text(provision(wanting), "error")
    locked = seaweed.settings("bucket-locked", object_lock="compliance")
    assert levels(provision(locked)) == {"ok"}
    assert "object_lock is off" in text(check(dataclasses.replace(locked, object_lock="off")), "warning")


def test_a_default_retention_is_reported_because_it_outlasts_retain_until(seaweed):
    settings = seaweed.settings("bucket-default-lock", object_lock="governance")
    provision(settings)
    connect(settings).set_object_lock_config(settings.bucket, ObjectLockConfig(GOVERNANCE, 30, DAYS))
    assert "30 Days" in text(check(settings), "warning")


@pytest.mark.parametrize("bucket", ["Bad_Name!", "x"])
def test_an_impossible_bucket_name_is_a_configuration_error(seaweed, bucket):
    settings = seaweed.settings(bucket)
    with pytest.raises(ConfigError):
        provision(settings)
    assert levels(check(settings)) == {"error"}


def test_unknown_credentials_are_a_configuration_error_without_showing_them(seaweed):
    settings = seaweed.settings("bucket-plain-2", access_key="somebodyelse00000001")
    with pytest.raises(ConfigError) as caught:
        provision(settings)
    shown = str(caught.value) + str(caught.value.hint) + repr(check(settings))
    assert "somebodyelse" not in shown
    assert settings.secret_key not in shown


async def test_an_outage_is_unavailable_to_provisioning_and_an_error_to_a_check(seaweed):
    async with tcp_proxy(seaweed.port) as proxy:
        await proxy.set(Mode.REFUSE)
        settings = seaweed.settings("bucket-outage", endpoint=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(Unavailable):
            await in_thread(provision, settings)
        assert levels(await in_thread(check, settings)) == {"error"}


async def test_the_store_adds_what_the_server_says_of_region_and_uploads(seaweed):
    settings = seaweed.settings("bucket-uploads")
    await in_thread(provision, settings)
    store = await S3ObjectStore.open(settings)
    assert levels(await store.check()) == {"ok"}
    await store._client.create_multipart_upload(Bucket=settings.bucket, Key="v1/left")
    assert "1 abandoned multipart uploads" in text(await store.check(), "warning")
    elsewhere = await S3ObjectStore.open(dataclasses.replace(settings, allowed_regions=("eu-west-2",)))
    assert "region" in text(await elsewhere.check(), "error")
    await store.close()
    await elsewhere.close()
