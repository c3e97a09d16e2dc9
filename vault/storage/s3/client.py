"""An S3 store's failures as the vault's errors, and the complete deletion of a key.

An object is absent only if a store that knows the bucket answers that it has no such key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError, ParamValidationError

from vault.errors import DiskFull, NotFound, RangeNotSatisfiable, Unavailable, VaultError, reason
from vault.ports.objects import Deletion

# -- failures as the vault's errors -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """One bucket. Without `access_key` the SDK's default credential chain applies.

    `endpoint` is a URL, or host[:port] with `secure` choosing the scheme; None is AWS itself. `checksum_mode`
    "when_required" suits every store; "when_supported" adds an x-amz-checksum-sha256 that some stores ignore or refuse.
    `object_lock` other than "off" locks each object until its retain-until, if the bucket has Object Lock.
    `attempts` counts requests, the first included; `operation_timeout_seconds` bounds one request with its retries.
    """

    bucket: str
    endpoint: str | None = None
    region: str = "eu-west-2"
    allowed_regions: tuple[str, ...] = ("eu-west-2",)
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    secure: bool = True
    addressing: Literal["path", "virtual", "auto"] = "path"
    checksum_mode: Literal["when_required", "when_supported"] = "when_required"
    object_lock: Literal["off", "governance", "compliance"] = "off"
    bypass_governance: bool = False
    server_side_encryption: bool = True
    max_connections: int = 32
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 30.0
    operation_timeout_seconds: float = 120.0
    attempts: int = 3
    page_size: int = 1000

    @property
    def endpoint_url(self) -> str | None:
        """Return the endpoint with its scheme."""
        if self.endpoint is None or "://" in self.endpoint:
            return self.endpoint
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"


CODE: Final = "s3_code"

LOCKED: Final = frozenset({"AccessDenied", "ObjectLocked"})
"""Answers to deleting a version that a lock or a policy protects."""

UNSUPPORTED: Final = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})
"""Answers to a request that the server does not implement."""

_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "404"})
_FULL: Final = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "507"})


def translate(error: Exception, operation: str) -> VaultError | None:
    """Return the vault's error for one raised by the SDK or the transport; None if it is a defect of this code.

    NotFound means that the answer was 404. A missing bucket gives the same answer to HEAD, so the caller checks the
    bucket before it takes the object as absent. Messages name the operation and the store's code, never a header or a
    credential.
    """
    if isinstance(error, ClientError):
        return _answered(error, operation)
    if isinstance(error, ParamValidationError):
        return None
    if isinstance(error, NoCredentialsError):
        return Unavailable(f"no credentials for the object store ({operation})", s3_code="NoCredentials")
    # For a body that was cut, aiobotocore raises an error of its HTTP library, which this layer does not import.
    transport = (BotoCoreError, HTTPClientError, OSError, TimeoutError)
    if isinstance(error, transport) or type(error).__module__.startswith("aiohttp"):
        return Unavailable(f"the object store did not answer {operation}: {reason(error)}")
    return None


def code_of(error: VaultError) -> str:
    """Return the store's own code behind a translated error, or ""."""
    return str(error.facts.get(CODE, ""))


def _answered(error: ClientError, operation: str) -> VaultError:
    code = str(error.response.get("Error", {}).get("Code", "unknown"))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    facts: dict[str, str | int] = {CODE: code, "status": status}
    text = f"the object store answered {operation} with {status} {code}"
    if code in _ABSENT:
        return NotFound(text, hint=None, **facts)
    if code == "InvalidRange" or status == 416:  # noqa: PLR2004 - RFC 9110, Range Not Satisfiable
        return RangeNotSatisfiable(text, hint=None, **facts)
    if code in _FULL:
        return DiskFull(text, hint=None, retry_after_seconds=60, **facts)
    if code == "NoSuchBucket":
        text = "the bucket does not exist; nothing is known of its objects"
    return Unavailable(text, hint=None, retry_after_seconds=5, **facts)


def new_client(settings: S3Settings) -> Any:
    """Return an async context manager that yields a client of the bucket's store."""
    session = aioboto3.Session(
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        region_name=settings.region,
    )
    return session.client("s3", endpoint_url=settings.endpoint_url, config=_client_config(settings))


@asynccontextmanager
async def answered(operation: str, settings: S3Settings) -> AsyncIterator[None]:
    """Bound the time of one request, and translate its failure."""
    try:
        # The SDK's timeouts do not cover a store that stops reading during an upload.
        async with asyncio.timeout(settings.operation_timeout_seconds):
            yield
    except VaultError:
        raise
    except Exception as error:
        translated = translate(error, operation)
        if translated is None:
            raise
        raise translated from error


def bucket_location(settings: S3Settings) -> dict[str, Any]:
    """Return the location parameter of CreateBucket, which AWS's first region does not take."""
    if settings.region == "us-east-1":
        return {}
    return {"CreateBucketConfiguration": {"LocationConstraint": settings.region}}


def _client_config(settings: S3Settings) -> AioConfig:
    return AioConfig(
        signature_version="s3v4",
        # The body is not part of the signature, because hashing it would block the event loop. Its digest is a header.
        s3={"addressing_style": settings.addressing, "payload_signing_enabled": False},
        request_checksum_calculation=settings.checksum_mode,
        response_checksum_validation=settings.checksum_mode,
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        connect_timeout=settings.connect_timeout_seconds,
        read_timeout=settings.read_timeout_seconds,
        max_pool_connections=settings.max_connections,
        tcp_keepalive=True,
    )


# -- the complete deletion of a key -------------------------------------------------------------------------------

Call = Callable[..., Awaitable[Any]]
"""Makes one request about the bucket: `await call("head_object", Key=...)`; raises the vault's errors."""


@dataclass(slots=True, kw_only=True)
class _Found:
    """What the store still has under one exact key."""

    versions: Sequence[str] = ()
    uploads: Sequence[str] = ()
    current: bool = False

    def __bool__(self) -> bool:
        return bool(self.versions or self.uploads or self.current)


@dataclass(slots=True, kw_only=True)
class _Tally:
    deleted: int = 0
    refused: list[str] = field(default_factory=list)


async def delete_every_version(call: Call, name: str, *, bypass_governance: bool) -> Deletion:
    """Delete everything under exactly `name`, then check; outages are raised, refusals give `absent=False`."""
    tally = _Tally()
    bypass = {"BypassGovernanceRetention": True} if bypass_governance else {}
    found = await _look(call, name)
    for version in found.versions:
        await _delete(call, tally, Key=name, VersionId=version, **bypass)
    for upload in found.uploads:
        await _abort(call, tally, name, upload)
    left = await _look(call, name) if found else found
    if left.current and all(version == "null" for version in left.versions):
        # There are no versions, or none that the store lists: only now does a plain DELETE delete instead of adding a
        # marker.
        await _delete(call, tally, Key=name)
        left = await _look(call, name)
    return Deletion(
        name=name,
        versions_deleted=tally.deleted,
        absent=not left,
        detail=_detail(tally, left) if left else "",
    )


async def leftover_uploads(call: Call, prefix: str) -> Sequence[tuple[str, str]]:
    """Return (key, upload id) of the unfinished multipart uploads under `prefix`; none where there is no multipart."""
    found: list[tuple[str, str]] = []
    markers: dict[str, str] = {}
    while True:
        try:
            page = await call("list_multipart_uploads", Prefix=prefix, **markers)
        except Unavailable as error:
            if code_of(error) in UNSUPPORTED:
                return found
            raise
        found += [(item["Key"], item["UploadId"]) for item in page.get("Uploads", ())]
        if not page.get("IsTruncated"):
            return found
        markers = _advanced(markers, KeyMarker=page["NextKeyMarker"], UploadIdMarker=page["NextUploadIdMarker"])


async def _look(call: Call, name: str) -> _Found:
    uploads = [upload for key, upload in await leftover_uploads(call, name) if key == name]
    return _Found(versions=await _versions(call, name), uploads=uploads, current=await _is_current(call, name))


async def _versions(call: Call, name: str) -> Sequence[str]:
    found: list[str] = []
    markers: dict[str, str] = {}
    while True:
        try:
            page = await call("list_object_versions", Prefix=name, **markers)
        except Unavailable as error:
            if code_of(error) in UNSUPPORTED:
                return found
            raise
        found += [item.get("VersionId") or "null" for item in _entries(page) if item["Key"] == name]
        if not page.get("IsTruncated"):
            return found
        after = {"KeyMarker": page["NextKeyMarker"]}
        if page.get("NextVersionIdMarker"):
            after["VersionIdMarker"] = page["NextVersionIdMarker"]
        markers = _advanced(markers, **after)


def _entries(page: Any) -> Iterator[Any]:
    yield from page.get("Versions", ())
    yield from page.get("DeleteMarkers", ())


def _advanced(before: dict[str, str], **after: str) -> dict[str, str]:
    # A listing that repeats itself would otherwise never end, and never prove anything absent.
    if after == before:
        raise Unavailable("the object store's listing does not advance; nothing is known to be absent")
    return after


async def _is_current(call: Call, name: str) -> bool:
    try:
        await call("head_object", Key=name)
    except NotFound:
        return False
    return True


async def _delete(call: Call, tally: _Tally, **which: Any) -> None:
    try:
        await call("delete_object", **which)
    except NotFound:
        return
    except Unavailable as error:
        if code_of(error) not in LOCKED:
            raise
        tally.refused.append(code_of(error))
    else:
        tally.deleted += 1


async def _abort(call: Call, tally: _Tally, name: str, upload: str) -> None:
    try:
        await call("abort_multipart_upload", Key=name, UploadId=upload)
    except Unavailable as error:
        if code_of(error) != "NoSuchUpload":
            raise
    else:
        tally.deleted += 1


def _detail(tally: _Tally, left: _Found) -> str:
    text = f"{len(left.versions)} versions and {len(left.uploads)} uploads are left"
    if tally.refused:
        text += f"; the store refused {len(tally.refused)} deletions ({', '.join(sorted(set(tally.refused)))})"
    return text
