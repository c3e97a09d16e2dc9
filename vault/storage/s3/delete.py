"""Deleting one key from S3 completely: versions, delete markers, abandoned multipart uploads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vault.errors import NotFound, Unavailable
from vault.ports.objects import Deletion
from vault.storage.s3.client import LOCKED, UNSUPPORTED, code_of

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
