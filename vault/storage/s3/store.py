"""The object store on S3: one long-lived aioboto3 client; every answer is checked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from vault.errors import ConfigError, IntegrityError, NotFound, RangeNotSatisfiable, Unavailable, VaultError
from vault.model import Finding
from vault.ports.objects import Deletion, ObjectInfo, ObjectMeta
from vault.storage.objects.names import (
    check_meta,
    check_name,
    check_places,
    check_prefix,
    check_range,
    held_text,
    meta_texts,
    parse_meta_texts,
)
from vault.storage.s3 import bucket
from vault.storage.s3.client import (
    UNSUPPORTED,
    S3Settings,
    answered,
    code_of,
    delete_every_version,
    delete_group,
    key_of,
    leftover_uploads,
    listed_together,
    new_client,
)
from vault.threads import in_thread

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_NO_LOCK: Final = UNSUPPORTED | {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"}
_TAGGED: Final = ("retain-until", "retention-class", "held")
_DELETING: Final = 24
"""Requests of deletions at a time: a client has 32 connections, and calls under way need some of them."""
# aiohttp sends larger `bytes` in one piece and warns of it; a file object is sent in slices.
_WHOLE_BODY_BYTES: Final = 1 << 20


def _utc_now() -> datetime:
    return datetime.now(UTC)


class S3ObjectStore:
    """An ObjectStore in one bucket that `bucket.provision` made; this class never creates one.

    `list` sorts each page and takes the pages as they come. That is name order on AWS; SeaweedFS pages through `a/b`
    before `a-b`. The names under one tenant are such that both orders agree.
    """

    kind: str = "s3"

    def __init__(
        self, *, settings: S3Settings, client: Any, stack: AsyncExitStack, now: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._client = client
        self._stack = stack
        self._now = now
        self._lock_enabled: bool | None = None
        self._deleting = asyncio.Semaphore(_DELETING)

    @classmethod
    async def open(cls, settings: S3Settings, *, now: Callable[[], datetime] = _utc_now) -> S3ObjectStore:
        """Connect and check whether the bucket has Object Lock; ConfigError if there is no such bucket.

        An outage is not an error here: ingest can start on the journal alone, and the check is repeated at a put.
        """
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(new_client(settings))
            store = cls(settings=settings, client=client, stack=stack, now=now)
            try:
                await store._locks()
            except Unavailable as error:
                _refuse_to_start(settings, error)
            store._stack = stack.pop_all()
            return store

    async def put(self, name: str, chunks: Sequence[bytes | memoryview], *, meta: ObjectMeta) -> ObjectInfo:
        """PUT the object, then HEAD; IntegrityError if the store reports another length or hash than was sent."""
        check_name(name)
        texts = meta_texts(check_meta(meta))
        supported = self._settings.checksum_mode == "when_supported"
        data, digest = await in_thread(_joined, chunks, "sha256" if supported else "md5")
        await self._call(
            "put_object",
            Key=name,
            Body=data if len(data) <= _WHOLE_BODY_BYTES else io.BytesIO(data),
            ContentLength=len(data),
            ContentType="application/octet-stream",
            Metadata=texts,
            Tagging=urlencode({key: texts[key] for key in _TAGGED}),
            # The store compares it and refuses changed bytes; with Object Lock, AWS requires one of the two.
            **({"ChecksumSHA256": digest} if supported else {"ContentMD5": digest}),
            **await self._lock_fields(meta),
        )
        try:
            head = await self._head(name)
        except NotFound as error:
            raise IntegrityError(f"{name} was acknowledged, but the store does not have it") from error
        stored = _announced(name, head)
        if stored != len(data) or head["Metadata"].get("sha256") != meta.sha256:
            raise IntegrityError(f"{name} was sent as {len(data)} bytes; the store reports {stored}, or another hash")
        return ObjectInfo(name=name, size=len(data), meta=meta)

    async def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        """GET a range, and check its length and position; see ObjectStore.get."""
        check_name(name)
        check_range(start, length)
        if length == 0:
            await self._head(name)
            return b""
        whole = start == 0 and length is None
        last = "" if length is None else str(start + length - 1)
        wanted = {} if whole else {"Range": f"bytes={start}-{last}"}
        try:
            async with answered("get_object", self._settings):
                answer = await self._client.get_object(Bucket=self._settings.bucket, Key=name, **wanted)
                async with answer["Body"]:
                    data: bytes = await answer["Body"].read()
        except RangeNotSatisfiable:
            return b""
        except NotFound as error:
            raise await self._absent(name) from error
        _check_length(name, answer, data, start=start, length=length)
        # A server may ignore Range and send the whole object without a Content-Range.
        ranged = whole or "ContentRange" in answer
        return data if ranged else data[start : None if length is None else start + length]

    async def stat(self, name: str) -> ObjectInfo:
        """HEAD plus the tags, which have the present hold state; `meta` is None for an object of other origin."""
        head = await self._head(check_name(name))
        size, texts = _announced(name, head), dict(head["Metadata"])
        if "retain-until" not in texts:
            return ObjectInfo(name=name, size=size)
        texts["held"] = (await self._tags(name)).get("held", texts.get("held", ""))
        texts = {key: texts.get(key, "") for key in ("retain-until", "retention-class", "sha256", "held")}
        return ObjectInfo(name=name, size=size, meta=parse_meta_texts(texts))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield names and sizes (no meta), one page a request; see ObjectStore.list and the class."""
        check_prefix(prefix)
        token: dict[str, str] = {}
        empty = True
        while True:
            page = await self._call("list_objects_v2", Prefix=prefix, MaxKeys=self._settings.page_size, **token)
            for item in sorted(page.get("Contents", ()), key=key_of):
                empty = False
                yield ObjectInfo(name=item["Key"], size=int(item["Size"]))
            if not page.get("IsTruncated"):
                break
            before, token = token, {"ContinuationToken": page.get("NextContinuationToken", "")}
            if token == before or not token["ContinuationToken"]:
                raise Unavailable("the object store's listing does not advance; the rest of it is not known")
        if empty:
            await self._require_bucket()

    async def set_held(self, name: str, *, held: bool) -> None:
        """Set the tag, and the legal hold where the bucket has Object Lock; see ObjectStore.set_held."""
        await self._head(check_name(name))
        tags = {**await self._tags(name), "held": held_text(held=held)}
        # Lock first when placing, unlock last when releasing: after a crash between the two an object may be locked
        # without the label, but never labelled held without a lock.
        steps = [self._tag_held, self._legal_hold]
        for step in reversed(steps) if held else steps:
            await step(name, tags)

    async def delete(self, name: str) -> Deletion:
        """Delete each version and marker by its id, abort the name's uploads, and list again; see ObjectStore.delete.

        A plain DELETE would only add a marker in a versioned bucket, and every version would stay readable.
        """
        deletion = await delete_every_version(
            self._call, check_name(name), bypass_governance=self._settings.bypass_governance
        )
        if deletion.absent:
            # Some stores return an empty list for a bucket they do not know.
            await self._require_bucket()
        return deletion

    async def delete_below(
        self, places: Mapping[str, Collection[str]]
    ) -> Mapping[str, Sequence[Deletion] | VaultError]:
        """Delete a thousand versions a request, which listings of many places name; see ObjectStore.delete_below."""

        async def one(group: Mapping[str, Collection[str]]) -> Mapping[str, Sequence[Deletion] | VaultError]:
            async with self._deleting:
                try:
                    found = await delete_group(self._call, group, bypass_governance=self._settings.bypass_governance)
                    await self._require_bucket()
                except VaultError as error:
                    return dict.fromkeys(group, error)
                return found

        found = await asyncio.gather(*map(one, listed_together(check_places(places))))
        outcomes = {place: outcome for group in found for place, outcome in group.items()}
        return {place: outcomes[place] for place in places}

    async def still_there(self) -> None:
        """Do nothing: each request fails by itself if the bucket is gone."""

    async def check(self) -> Sequence[Finding]:
        """Return findings on the bucket, the region the server reports, and abandoned multipart uploads."""
        findings = [*await in_thread(bucket.check, self._settings)]
        if any(finding.level == "error" for finding in findings):
            return findings
        try:
            location = (await self._call("get_bucket_location")).get("LocationConstraint")
            findings.append(bucket.region_finding(self._settings, location))
            uploads = await leftover_uploads(self._call, "")
            findings.append(bucket.uploads_finding(len(uploads)))
        except VaultError as error:
            findings.append(Finding(level="warning", subject="objects", message=error.message))
        return findings

    async def close(self) -> None:
        """Close the client and its connections; idempotent."""
        await self._stack.aclose()

    async def _call(self, operation: str, **parameters: Any) -> Any:
        """Make one request about the bucket; errors are the vault's (see `vault.storage.s3.client`)."""
        async with answered(operation, self._settings):
            return await getattr(self._client, operation)(Bucket=self._settings.bucket, **parameters)

    async def _head(self, name: str) -> Any:
        try:
            return await self._call("head_object", Key=name)
        except NotFound as error:
            raise await self._absent(name) from error

    async def _absent(self, name: str) -> NotFound:
        """Return NotFound once the bucket is known to exist; Unavailable if it does not."""
        await self._require_bucket()
        return NotFound(f"there is no object {name}")

    async def _require_bucket(self) -> None:
        try:
            await self._call("head_bucket")
        except NotFound as error:
            raise Unavailable(
                f"the bucket {self._settings.bucket} does not exist; nothing is known of its objects",
                s3_code="NoSuchBucket",
            ) from error

    async def _tags(self, name: str) -> dict[str, str]:
        try:
            answer = await self._call("get_object_tagging", Key=name)
        except NotFound as error:
            raise await self._absent(name) from error
        return {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", ())}

    async def _tag_held(self, name: str, tags: dict[str, str]) -> None:
        tag_set = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
        await self._call("put_object_tagging", Key=name, Tagging={"TagSet": tag_set})

    async def _legal_hold(self, name: str, tags: dict[str, str]) -> None:
        if await self._locks():
            status = "ON" if tags["held"] == held_text(held=True) else "OFF"
            await self._call("put_object_legal_hold", Key=name, LegalHold={"Status": status})

    async def _locks(self) -> bool:
        """Tell whether the bucket has Object Lock; asked once, and again after an outage."""
        if self._lock_enabled is None:
            try:
                answer = await self._call("get_object_lock_configuration")
            except VaultError as error:
                if code_of(error) not in _NO_LOCK:
                    raise
                self._lock_enabled = False
            else:
                found = answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled")
                self._lock_enabled = found == "Enabled"
        return self._lock_enabled and self._settings.object_lock != "off"

    async def _lock_fields(self, meta: ObjectMeta) -> dict[str, Any]:
        if not await self._locks():
            return {}
        hold = {"ObjectLockLegalHoldStatus": "ON"} if meta.held else {}
        # S3 has whole seconds: round up, so that protection is never shorter. It refuses an instant that has passed.
        until = meta.retain_until.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        if until <= self._now() + timedelta(seconds=1):
            return hold
        mode = self._settings.object_lock.upper()
        return {**hold, "ObjectLockMode": mode, "ObjectLockRetainUntilDate": until}


def _refuse_to_start(settings: S3Settings, error: Unavailable) -> None:
    match code_of(error):
        case "NoSuchBucket":
            message = f"objects.s3.bucket: there is no bucket {settings.bucket}"
            raise ConfigError(message, hint="`callvault init` creates it") from error
        case "NoCredentials":
            message = "objects.s3.access_key: there are no credentials"
            raise ConfigError(message, hint="set them, or give the process a role") from error


def _joined(chunks: Sequence[bytes | memoryview], algorithm: str) -> tuple[bytes, str]:
    """Return the body and its base64 digest; a single `bytes` is not copied."""
    first = chunks[0] if len(chunks) == 1 else None
    data = first if isinstance(first, bytes) else b"".join(chunks)
    digest = hashlib.new(algorithm, data, usedforsecurity=False).digest()
    return data, base64.b64encode(digest).decode()


def _announced(name: str, answer: Any) -> int:
    if "ContentLength" not in answer:
        raise IntegrityError(f"the store does not say how long {name} is; nothing was returned")
    return int(answer["ContentLength"])


def _check_length(name: str, answer: Any, data: bytes, *, start: int, length: int | None) -> None:
    """Raise IntegrityError unless the answer is the range it states, and the one that was asked for."""
    if "ContentRange" not in answer:
        expected = _announced(name, answer)
    else:
        match = _CONTENT_RANGE.fullmatch(answer["ContentRange"])
        if match is None:
            raise IntegrityError(f"the store described the range of {name} unintelligibly; nothing was returned")
        first, last, total = map(int, match.groups())
        end = total if length is None else min(start + length, total)
        if (first, last + 1) != (start, end):
            raise IntegrityError(f"bytes {start}-{end - 1} of {name} were asked for, {first}-{last} were sent")
        expected = end - start
    if len(data) != expected:
        raise IntegrityError(f"the store announced {expected} bytes of {name} and sent {len(data)}")
