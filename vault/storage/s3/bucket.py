"""Provisioning and checking one S3 bucket with the minio SDK; blocking, call it in a worker thread.

A feature that a server lacks becomes a warning, because stores differ in what they support.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

import botocore.session
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import MinioException, S3Error
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, LifecycleConfig, Rule
from minio.sseconfig import Rule as EncryptionRule
from minio.sseconfig import SSEConfig

from vault.errors import ConfigError, Unavailable, reason
from vault.model import Finding
from vault.storage.s3.client import S3Settings

SUBJECT: Final = "objects"
UPLOAD_RULE: Final = "callvault-abort-uploads"

_ABORT_AFTER_DAYS: Final = 1
_RETRIES: Final = 2
_SERVER_ERROR: Final = 500
_OWNED: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_NO_LOCK: Final = frozenset({"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"})
_LEGACY_REGIONS: Final = {None: "us-east-1", "": "us-east-1", "EU": "eu-west-1"}

_Step = Callable[[Minio, S3Settings], Finding]


def provision(settings: S3Settings) -> Sequence[Finding]:
    """Create the bucket if it is missing and set it up; repeatable. Then return `check`'s findings.

    Object Lock can only be enabled at creation. Versioning stays as it is: deletion handles both, and the server
    versions a bucket with Object Lock. Raises Unavailable, or ConfigError if the region is not allowed or the bucket
    cannot be used.
    """
    if settings.region not in settings.allowed_regions:
        # Before the first request, so that no bucket is made in a region that is not allowed.
        message = f"objects.s3.region: {settings.region} is not among the allowed regions; nothing was changed"
        raise ConfigError(message, hint="see objects.s3.allowed_regions")
    client = connect(settings)
    try:
        if not client.bucket_exists(settings.bucket):
            _make(client, settings)
    except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise _cannot(settings, error) from error
    failed = [
        finding
        for step in (_set_encryption, _set_lifecycle)
        for finding in _attempt(step, client, settings)
        if finding.level != "ok"
    ]
    reported = {finding.message for finding in failed}
    return [*failed, *(finding for finding in check(settings) if finding.message not in reported)]


def check(settings: S3Settings) -> Sequence[Finding]:
    """Return findings: reachable and existing, region, encryption, versioning, lifecycle, Object Lock."""
    try:
        client = connect(settings)
        exists = client.bucket_exists(settings.bucket)
    except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
        return [_finding("error", f"bucket {settings.bucket} cannot be checked: {_reason(error)}")]
    except ConfigError as error:
        return [_finding("error", error.message, error.hint)]
    if not exists:
        return [_finding("error", f"there is no bucket {settings.bucket}", "`callvault init` creates it")]
    steps: tuple[_Step, ...] = (_encryption, _versioning, _lifecycle, _lock)
    return [
        _finding("ok", f"bucket {settings.bucket} exists"),
        region_finding(settings, settings.region, source="configured"),
        *(finding for step in steps for finding in _attempt(step, client, settings)),
    ]


def region_finding(settings: S3Settings, region: str | None, *, source: str = "reported by the store") -> Finding:
    """Compare a region (as GetBucketLocation spells it) with the allowed ones.

    Only AWS's regions are places. Another server may report any name, so that only gives a warning.
    """
    named = _LEGACY_REGIONS.get(region, region)
    if named in settings.allowed_regions:
        return _finding("ok", f"region {named} ({source}) is allowed")
    level = "error" if settings.endpoint is None or source == "configured" else "warning"
    allowed = ", ".join(settings.allowed_regions) or "none"
    return _finding(level, f"region {named} ({source}) is not among the allowed: {allowed}", "see allowed_regions")


def uploads_finding(count: int) -> Finding:
    """Judge the number of unfinished multipart uploads in the bucket; the vault itself makes none."""
    if count == 0:
        return _finding("ok", "no abandoned multipart uploads")
    return _finding("warning", f"{count} abandoned multipart uploads", "the bucket's lifecycle rule removes them")


def connect(settings: S3Settings) -> Minio:
    """Return a minio client with the data path's credentials and bounded timeouts; ConfigError."""
    url = urlsplit(settings.endpoint_url or "https://s3.amazonaws.com")
    if url.scheme not in ("http", "https") or not url.netloc or url.path.strip("/"):
        raise ConfigError("objects.s3.endpoint: not an address", hint="use https://host or https://host:port")
    access_key, secret_key, token = settings.access_key, settings.secret_key, None
    if access_key is None:
        # The data path gets its credentials from botocore; so must this, or the two could be different users.
        found = botocore.session.get_session().get_credentials()
        if found is None:
            raise ConfigError("objects.s3.access_key: there are no credentials", hint="set them, or give it a role")
        frozen = found.get_frozen_credentials()
        access_key, secret_key, token = frozen.access_key, frozen.secret_key, frozen.token
    try:
        client = Minio(
            url.netloc,
            access_key=access_key,
            secret_key=secret_key,
            session_token=token,
            secure=url.scheme == "https",
            region=settings.region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=settings.connect_timeout_seconds, read=settings.read_timeout_seconds),
                retries=urllib3.Retry(total=_RETRIES, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
            ),
        )
    except ValueError as error:
        raise ConfigError("objects.s3: the endpoint or the credentials are not usable") from error
    # The SDK's switches have no type annotations, hence the look-up by name.
    switch = {"path": "disable_virtual_style_endpoint", "virtual": "enable_virtual_style_endpoint"}
    if settings.addressing in switch:
        getattr(client, switch[settings.addressing])()
    return client


def _make(client: Minio, settings: S3Settings) -> None:
    try:
        client.make_bucket(settings.bucket, location=settings.region, object_lock=settings.object_lock != "off")
    except S3Error as error:
        # Another node's `init` may have created it meanwhile; if somebody else owns it, the check fails.
        if error.code not in _OWNED or not client.bucket_exists(settings.bucket):
            raise


def _attempt(step: _Step, client: Minio, settings: S3Settings) -> Iterator[Finding]:
    try:
        yield step(client, settings)
    except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
        yield _finding("warning", f"{step.__name__.removeprefix('_').replace('_', ' ')}: {_reason(error)}")


def _set_encryption(client: Minio, settings: S3Settings) -> Finding:
    if settings.server_side_encryption and client.get_bucket_encryption(settings.bucket) is None:
        client.set_bucket_encryption(settings.bucket, SSEConfig(EncryptionRule.new_sse_s3_rule()))
    return _finding("ok", "encryption set")


def _set_lifecycle(client: Minio, settings: S3Settings) -> Finding:
    config = client.get_bucket_lifecycle(settings.bucket)
    rules = [] if config is None else [rule for rule in config.rules if rule.rule_id != UPLOAD_RULE]
    ours = Rule(
        ENABLED,
        rule_filter=Filter(prefix=""),
        rule_id=UPLOAD_RULE,
        abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(days_after_initiation=_ABORT_AFTER_DAYS),
    )
    client.set_bucket_lifecycle(settings.bucket, LifecycleConfig([*rules, ours]))
    return _finding("ok", "lifecycle set")


def _encryption(client: Minio, settings: S3Settings) -> Finding:
    if client.get_bucket_encryption(settings.bucket) is not None:
        return _finding("ok", "the store encrypts objects by default, on top of the vault's own sealing")
    if not settings.server_side_encryption:
        return _finding("ok", "no encryption by the store, as configured; the vault seals objects before storing them")
    return _finding("warning", "the store does not encrypt by default; the vault seals objects before storing them")


def _versioning(client: Minio, settings: S3Settings) -> Finding:
    status = client.get_bucket_versioning(settings.bucket).status
    return _finding("ok", f"versioning: {status or 'Off'}; deletion removes every version by its id")


def _lifecycle(client: Minio, settings: S3Settings) -> Finding:
    config = client.get_bucket_lifecycle(settings.bucket)
    rules = () if config is None else config.rules
    if any(_expires_objects(rule) for rule in rules):
        return _finding(
            "error",
            "a lifecycle rule expires objects: it would delete recordings under hold, without certificates",
            "remove the bucket's expiration rules; the sweeper alone deletes",
        )
    if any(rule.abort_incomplete_multipart_upload is not None and rule.status == ENABLED for rule in rules):
        return _finding("ok", "abandoned multipart uploads are aborted by the bucket's lifecycle")
    return _finding("warning", "no lifecycle rule aborts abandoned multipart uploads")


def _expires_objects(rule: Rule) -> bool:
    # A rule that only removes expired delete markers has an expiration too, but removes no bytes.
    expiration = rule.expiration
    return rule.status == ENABLED and expiration is not None and bool(expiration.days or expiration.date)


def _lock(client: Minio, settings: S3Settings) -> Finding:
    try:
        config = client.get_object_lock_config(settings.bucket)
    except S3Error as error:
        if error.code not in _NO_LOCK:
            raise
        if settings.object_lock == "off":
            return _finding("ok", "no Object Lock, as configured")
        return _finding(
            "error",
            f"object_lock is {settings.object_lock}, but the bucket has no Object Lock; objects are not locked",
            "Object Lock is chosen when a bucket is created: provision a new one",
        )
    if config.mode is not None:
        return _finding(
            "warning",
            f"the bucket locks every object for {config.duration} {config.duration_unit} ({config.mode}), "
            "whatever its retain-until",
            "remove the bucket's default retention; each object carries its own",
        )
    if settings.object_lock == "off":
        return _finding("warning", "the bucket has Object Lock, but object_lock is off; objects are not locked")
    return _finding("ok", f"Object Lock: each object is locked ({settings.object_lock}) until its retain-until")


def _finding(level: str, message: str, hint: str | None = None) -> Finding:
    return Finding(level=level, subject=SUBJECT, message=message, hint=hint)


def _reason(error: Exception) -> str:
    """Return text that is safe to show: the store's code, or the kind of failure; never a URL or a header."""
    return f"the store answered {error.code}" if isinstance(error, S3Error) else reason(error)


def _cannot(settings: S3Settings, error: Exception) -> ConfigError | Unavailable:
    text = f"bucket {settings.bucket} cannot be provisioned: {_reason(error)}"
    outage = isinstance(error, S3Error) and error.response.status >= _SERVER_ERROR
    if isinstance(error, (S3Error, ValueError)) and not outage:
        return ConfigError(f"objects.s3.bucket: {text}", hint="is the name taken, or do the credentials not suffice?")
    return Unavailable(text)
