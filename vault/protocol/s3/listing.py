"""The answers of ListMultipartUploads and ListParts: selection, order and pages.

After the Amazon S3 API reference, "ListMultipartUploads" and "ListParts".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final
from urllib.parse import quote

from vault.errors import Invalid
from vault.instants import rfc3339
from vault.protocol.s3.requests import MAX_PARTS, Tree

MAX_UPLOADS: Final = 1_000
"""The greatest number of uploads on a page, as in S3."""
_ALWAYS: Final = frozenset({"KeyMarker", "UploadIdMarker", "Prefix"})
"""Members that are sent even if they are empty."""
_LAST: Final = "\U0010ffff"
"""A text that sorts after all ids."""
_COUNT: Final = re.compile(r"\d{1,10}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """An upload in parts that is neither completed nor aborted. A later upload of a key has a greater id."""

    key: str
    upload: str
    initiated: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadsQuery:
    """The query for a page of uploads: up to `most` after the markers, whose keys begin with `prefix`.

    Keys with `delimiter` after the prefix are listed as one common prefix. `encoded` lists keys in URL encoding.
    """

    prefix: str = ""
    delimiter: str = ""
    key_marker: str = ""
    upload_marker: str = ""
    most: int = MAX_UPLOADS
    encoded: bool = False


def uploads_query(parameters: Mapping[str, str]) -> UploadsQuery:
    """Return the query in the parameters; Invalid for a malformed count, or an encoding that is not offered."""
    encoding = parameters.get("encoding-type", "")
    if encoding not in ("", "url"):
        raise Invalid("encoding-type is url, or is left out", s3="InvalidArgument")
    marker = parameters.get("key-marker", "")
    return UploadsQuery(
        prefix=parameters.get("prefix", ""),
        delimiter=parameters.get("delimiter", ""),
        key_marker=marker,
        upload_marker=parameters.get("upload-id-marker", "") if marker else "",
        most=min(_count(parameters, "max-uploads", MAX_UPLOADS), MAX_UPLOADS),
        encoded=encoding == "url",
    )


def uploads_page(bucket: str, query: UploadsQuery, uploads: Iterable[Unfinished], *, owner: str) -> Tree:
    """Return the members of one page of `uploads`, ordered by key and then by age; their owner is `owner`."""
    spell: Callable[[str], str] = quote if query.encoded else str
    behind = (query.key_marker, query.upload_marker or _LAST) if query.key_marker else ("", "")
    found: dict[tuple[str, str], Unfinished | None] = {}
    for each in sorted(uploads, key=lambda upload: (upload.key, upload.upload)):
        common = _common(each.key, query)
        place = (each.key, each.upload) if common is None else (common, "")
        if each.key.startswith(query.prefix) and place > behind:
            found[place] = each if common is None else None
    page = dict(islice(found.items(), query.most))
    more = len(found) > len(page) > 0
    next_key, next_upload = list(page)[-1] if more else ("", "")
    members = [
        ("Bucket", bucket),
        ("KeyMarker", spell(query.key_marker)),
        ("UploadIdMarker", query.upload_marker),
        ("NextKeyMarker", spell(next_key)),
        ("NextUploadIdMarker", next_upload),
        ("Prefix", spell(query.prefix)),
        ("Delimiter", spell(query.delimiter)),
        ("EncodingType", "url" if query.encoded else ""),
        ("MaxUploads", str(query.most)),
        ("IsTruncated", str(more).lower()),
    ]
    return [
        *((name, value) for name, value in members if value or name in _ALWAYS),
        *(("Upload", _upload(each, spell, owner)) for each in page.values() if each is not None),
        *(("CommonPrefixes", [("Prefix", spell(key))]) for (key, _), each in page.items() if each is None),
    ]


def _common(key: str, query: UploadsQuery) -> str | None:
    """Return the common prefix under which a key is listed; None if the key itself is listed."""
    if not query.delimiter:
        return None
    before, delimiter, _ = key[len(query.prefix) :].partition(query.delimiter)
    return query.prefix + before + delimiter if delimiter else None


def _upload(each: Unfinished, spell: Callable[[str], str], owner: str) -> Tree:
    person = [("ID", owner), ("DisplayName", owner)]
    return [
        ("Key", spell(each.key)),
        ("UploadId", each.upload),
        ("Initiator", person),
        ("Owner", person),
        ("StorageClass", "STANDARD"),
        ("Initiated", rfc3339(each.initiated)),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPart:
    """A durable part of an upload."""

    number: int
    etag: str
    size: int


def parts_page(parameters: Mapping[str, str], parts: Iterable[ListedPart]) -> Tree:
    """Return the members of one page of an upload's `parts`, which are in order; Invalid for a malformed count."""
    most = min(_count(parameters, "max-parts", MAX_PARTS), MAX_PARTS)
    marker = _count(parameters, "part-number-marker", 0)
    found = [each for each in parts if each.number > marker]
    page = found[:most]
    more = len(found) > len(page) > 0
    return [
        ("PartNumberMarker", str(marker)),
        *([("NextPartNumberMarker", str(page[-1].number))] if more else []),
        ("MaxParts", str(most)),
        ("IsTruncated", str(more).lower()),
        *(
            ("Part", [("PartNumber", str(each.number)), ("ETag", f'"{each.etag}"'), ("Size", str(each.size))])
            for each in page
        ),
    ]


def _count(parameters: Mapping[str, str], name: str, default: int) -> int:
    stated = parameters.get(name) or str(default)
    if not _COUNT.fullmatch(stated):
        raise Invalid(f"{name} is not a count", s3="InvalidArgument")
    return int(stated)
