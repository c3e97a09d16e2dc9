"""An S3 store's failures as the vault's errors, and the complete deletion of a key.

An object is absent only if a store that knows the bucket answers that it has no such key.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from os.path import commonprefix
from typing import Any, Final, Literal, NamedTuple, TypeAlias

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


_KEYS_A_REQUEST: Final = 1000
"""The most that DeleteObjects takes."""
_NOT_AT_ONCE: Final = UNSUPPORTED | {"MissingContentMD5", "InvalidDigest", "InvalidRequest", "MalformedXML"}
"""Answers of stores that do not take DeleteObjects, or not as it is sent here: keys are then deleted one by one."""
_SORTS_ALIKE: Final = re.compile("[0-9A-Za-z_=@:;~]+")
"""Characters above "/": with these alone, a store that goes through directories lists in the order of whole names."""


class _Listing(NamedTuple):
    """A request that lists keys: its members, what tells one entry of a key from another, and how it goes on."""

    operation: str
    members: tuple[str, ...]
    entry: str
    markers: Mapping[str, str]


_VERSIONS: Final = _Listing(
    "list_object_versions",
    ("Versions", "DeleteMarkers"),
    "VersionId",
    {"KeyMarker": "NextKeyMarker", "VersionIdMarker": "NextVersionIdMarker"},
)
_UPLOADS: Final = _Listing(
    "list_multipart_uploads",
    ("Uploads",),
    "UploadId",
    {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"},
)
_CURRENT: Final = _Listing("list_objects_v2", ("Contents",), "", {"ContinuationToken": "NextContinuationToken"})
_NULL: Final = "null"
"""The version of a key that was put without versions."""

_Entry: TypeAlias = tuple[str, str]
"""A key, and the id of a version or an upload of it."""


@dataclass(slots=True, kw_only=True)
class _Found:
    """What the store still has under one exact key."""

    versions: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    current: bool = False

    def __bool__(self) -> bool:
        return bool(self.versions or self.uploads or self.current)


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What became of the deletions of one key; `failed` is the code of one of which nothing is known."""

    deleted: int = 0
    refused: list[str] = field(default_factory=list)
    failed: str = ""


async def delete_every_version(call: Call, name: str, *, bypass_governance: bool) -> Deletion:
    """Delete everything under exactly `name`, then check; outages are raised, refusals give `absent=False`."""
    tally = _Tally()
    bypass = _bypass(bypass_governance=bypass_governance)
    found = await _look(call, name)
    for version in found.versions:
        await _delete(call, tally, Key=name, VersionId=version, **bypass)
    for upload in found.uploads:
        await _abort(call, tally, name, upload)
    left = await _look(call, name) if found else found
    if left.current and all(version == _NULL for version in left.versions):
        # There are no versions, or none that the store lists: only now does a plain DELETE delete instead of adding a
        # marker.
        await _delete(call, tally, Key=name)
        left = await _look(call, name)
    return _deletion(name, tally, left)


async def leftover_uploads(call: Call, prefix: str) -> Sequence[_Entry]:
    """Return (key, upload id) of the unfinished multipart uploads under `prefix`; none where there is no multipart."""
    return [entry async for page in _pages(call, _UPLOADS, prefix) for entry in page.entries]


async def _look(call: Call, name: str) -> _Found:
    uploads = [upload for key, upload in await leftover_uploads(call, name) if key == name]
    versions = [version async for page in _pages(call, _VERSIONS, name) for key, version in page.entries if key == name]
    return _Found(versions=versions, uploads=uploads, current=await _is_current(call, name))


class _Page(NamedTuple):
    """A page of a listing; `ordered` unless its keys descend somewhere, `more` unless it is the last."""

    entries: Sequence[_Entry]
    ordered: bool
    more: bool


async def _pages(call: Call, listing: _Listing, prefix: str) -> AsyncIterator[_Page]:
    """Yield the pages of a listing; none if the store has no such listing."""
    markers: dict[str, str] = {}
    while True:
        try:
            answer = await call(listing.operation, Prefix=prefix, **markers)
        except Unavailable as error:
            if code_of(error) in UNSUPPORTED and listing is not _CURRENT:
                return
            raise
        members = [
            [(key_of(item), item.get(listing.entry) or _NULL) for item in answer.get(member, ())]
            for member in listing.members
        ]
        ordered = all(before[0] <= after[0] for each in members for before, after in pairwise(each))
        more = bool(answer.get("IsTruncated"))
        yield _Page([*chain.from_iterable(members)], ordered, more)
        if not more:
            return
        markers = _advanced(markers, **{name: answer[at] for name, at in listing.markers.items() if answer.get(at)})


def key_of(item: Mapping[str, Any]) -> str:
    """Return the key that an entry of a listing is about; Unavailable if it has none."""
    if not (key := item.get("Key")):
        raise Unavailable("the object store listed an object without its key; nothing is known to be absent")
    return str(key)


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


def _bypass(*, bypass_governance: bool) -> dict[str, bool]:
    return {"BypassGovernanceRetention": True} if bypass_governance else {}


def _deletion(name: str, tally: _Tally, left: _Found) -> Deletion:
    return Deletion(
        name=name, versions_deleted=tally.deleted, absent=not left, detail=_detail(tally, left) if left else ""
    )


def _detail(tally: _Tally, left: _Found) -> str:
    text = f"{len(left.versions)} versions and {len(left.uploads)} uploads are left"
    if tally.refused:
        text += f"; the store refused {len(tally.refused)} deletions ({', '.join(sorted(set(tally.refused)))})"
    return text


# -- the complete deletion of all that lies below places ----------------------------------------------------------


def listed_together(places: Mapping[str, Collection[str]]) -> Iterator[dict[str, Collection[str]]]:
    """Yield the places in groups of about a request's keys; those of one group lie beside each other."""
    beside: defaultdict[str, list[str]] = defaultdict(list)
    for place in sorted(places):
        above, _, last = place[:-1].rpartition("/")
        beside[above if _SORTS_ALIKE.fullmatch(last) else place].append(place)
    for each in beside.values():
        group: dict[str, Collection[str]] = {}
        size = 0
        for place in each:
            count = max(len(places[place]), 1)
            if group and size + count > _KEYS_A_REQUEST:
                yield group
                group, size = {}, 0
            group[place] = places[place]
            size += count
        yield group


async def delete_group(
    call: Call, places: Mapping[str, Collection[str]], *, bypass_governance: bool
) -> Mapping[str, Sequence[Deletion] | VaultError]:
    """Delete everything below each of the places, which `listed_together` returned as one group, then check.

    Outages are raised. A key whose deletion failed, and which is still there, makes its place's outcome an error.
    """
    ordered = sorted(places)
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
    bypass = _bypass(bypass_governance=bypass_governance)
    versions, uploads = await _below(call, _VERSIONS, ordered), await _below(call, _UPLOADS, ordered)
    await _delete_at_once(call, tallies, [{"Key": key, "VersionId": version} for key, version in versions], bypass)
    for name, upload in uploads:
        await _abort(call, tallies[name], name, upload)
    left = await _look_below(call, ordered, current_only=not versions and not uploads)
    # As for one key: a plain DELETE, which otherwise adds a marker, only where no version has an id.
    plain = [name for name, found in left.items() if found.current and all(each == _NULL for each in found.versions)]
    if plain:
        await _delete_at_once(call, tallies, [{"Key": name} for name in plain], {})
        left = await _look_below(call, ordered)
    names: dict[str, set[str]] = {place: {*known} for place, known in places.items()}
    for name in {*left, *tallies}:
        names[_place_of(name, ordered)].add(name)
    return {
        place: _failure(left, tallies, known)
        or [_deletion(name, tallies[name], left.get(name, _Found())) for name in sorted(known)]
        for place, known in names.items()
    }


def _failure(left: Mapping[str, _Found], tallies: Mapping[str, _Tally], names: Collection[str]) -> VaultError | None:
    codes = {tallies[name].failed for name in names if name in left and name in tallies} - {""}
    if not codes:
        return None
    code = min(codes)
    return Unavailable(f"the object store answered delete_objects with {code} for a key", s3_code=code)


async def _look_below(call: Call, places: Sequence[str], *, current_only: bool = False) -> dict[str, _Found]:
    """Return what the store has under each key below the places; no key without anything."""
    found: defaultdict[str, _Found] = defaultdict(_Found)
    if not current_only:
        for name, version in await _below(call, _VERSIONS, places):
            found[name].versions.append(version)
        for name, upload in await _below(call, _UPLOADS, places):
            found[name].uploads.append(upload)
    for name, _ in await _below(call, _CURRENT, places):
        found[name].current = True
    return dict(found)


async def _below(call: Call, listing: _Listing, places: Sequence[str]) -> Sequence[_Entry]:
    """Return what a listing has below the places, which are in order, each once.

    The pages of their common prefix have them all. Where that has so much else that a page passes no place, the
    places are listed in two halves, at last each for itself: never many pages for one.
    """
    found: set[_Entry] = set()
    passed, last, ordered = 0, "", True
    async for page in _pages(call, listing, commonprefix(places)):  # noqa: RUF071 - a prefix of names
        found.update(entry for entry in page.entries if _place_of(entry[0], places))
        keys = [key for key, _ in page.entries]
        ordered = ordered and page.ordered and min(keys, default=last) >= last
        # Out of order, or for one place: nothing is known of the rest before the last page.
        if not page.more or not ordered or len(places) == 1:
            continue
        last = max(keys, default=last)
        before, passed = passed, bisect_right(places, last)
        if passed and last.startswith(places[passed - 1]):
            passed -= 1
        if passed == len(places):
            break
        if passed == before:
            middle = passed + (len(places) - passed + 1) // 2
            for half in (places[passed:middle], places[middle:]):
                found.update(await _below(call, listing, half) if half else ())
            break
    return sorted(found)


def _place_of(name: str, places: Sequence[str]) -> str:
    """Return the place that a name lies in, or ""."""
    at = bisect_right(places, name)
    return places[at - 1] if at and name.startswith(places[at - 1]) else ""


async def _delete_at_once(
    call: Call, tallies: Mapping[str, _Tally], wanted: Sequence[dict[str, str]], bypass: dict[str, bool]
) -> None:
    """Delete keys or versions of them, many a request; what became of each is in the tally of its key."""
    for start in range(0, len(wanted), _KEYS_A_REQUEST):
        some = wanted[start : start + _KEYS_A_REQUEST]
        try:
            answer = await call("delete_objects", Delete={"Objects": some, "Quiet": False}, **bypass)
        except (NotFound, Unavailable) as error:
            if isinstance(error, Unavailable) and code_of(error) not in _NOT_AT_ONCE:
                raise
            for each in some:
                await _delete(call, tallies[each["Key"]], **each, **bypass)
            continue
        asked = {each["Key"] for each in some}
        for item in answer.get("Deleted", ()):
            tallies[_asked_for(item, asked)].deleted += 1
        for item in answer.get("Errors", ()):
            code = str(item.get("Code", "unknown"))
            key = _asked_for(item, asked)
            if code in LOCKED:
                tallies[key].refused.append(code)
            elif code not in _ABSENT:
                tallies[key].failed = code


def _asked_for(item: Mapping[str, Any], asked: Collection[str]) -> str:
    """Return the key that an answer to a deletion is about; Unavailable if its deletion was not asked for."""
    if (key := item.get("Key")) not in asked:
        raise Unavailable(
            "the object store answered delete_objects about a key that it was not asked to delete; nothing is known to "
            "be absent",
            hint="the deletion is tried again; if this stays, the store or what is in front of it changes keys",
        )
    return str(key)
