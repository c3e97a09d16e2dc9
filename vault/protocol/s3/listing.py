"""What ListMultipartUploads and ListParts answer: which of what there is, in which order, and in how many pages.

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
"""Of one page, as S3 has it."""
_ALWAYS: Final = frozenset({"KeyMarker", "UploadIdMarker", "Prefix"})
"""Members that are there even if they say nothing."""
_LAST: Final = "\U0010ffff"
"""Behind every id."""
_COUNT: Final = re.compile(r"\d{1,10}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """An upload in parts that is neither completed nor aborted. Later ones of one key have greater ids."""

    key: str
    upload: str
    initiated: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadsWanted:
    """Which uploads a page has: those whose key begins with `prefix` and that come behind the markers, `most` at most.

    Keys that have `delimiter` behind the prefix are told as one prefix. `encoded`: keys are told in URL encoding.
    """

    prefix: str = ""
    delimiter: str = ""
    key_marker: str = ""
    upload_marker: str = ""
    most: int = MAX_UPLOADS
    encoded: bool = False


def uploads_wanted(parameters: Mapping[str, str]) -> UploadsWanted:
    """Return what a query asks for; Invalid for a count that is none, or an encoding that is not offered."""
    encoding = parameters.get("encoding-type", "")
    if encoding not in ("", "url"):
        raise Invalid("encoding-type is url, or is left out", s3="InvalidArgument")
    marker = parameters.get("key-marker", "")
    return UploadsWanted(
        prefix=parameters.get("prefix", ""),
        delimiter=parameters.get("delimiter", ""),
        key_marker=marker,
        upload_marker=parameters.get("upload-id-marker", "") if marker else "",
        most=min(_count(parameters, "max-uploads", MAX_UPLOADS), MAX_UPLOADS),
        encoded=encoding == "url",
    )


def uploads_page(bucket: str, wanted: UploadsWanted, there: Iterable[Unfinished], *, owner: str) -> Tree:
    """Return the members of one page of the uploads that are `there`, by key and then by age; all are `owner`'s."""
    spell: Callable[[str], str] = quote if wanted.encoded else str
    behind = (wanted.key_marker, wanted.upload_marker or _LAST) if wanted.key_marker else ("", "")
    found: dict[tuple[str, str], Unfinished | None] = {}
    for each in sorted(there, key=lambda upload: (upload.key, upload.upload)):
        common = _common(each.key, wanted)
        place = (each.key, each.upload) if common is None else (common, "")
        if each.key.startswith(wanted.prefix) and place > behind:
            found[place] = each if common is None else None
    page = dict(islice(found.items(), wanted.most))
    more = len(found) > len(page) > 0
    next_key, next_upload = list(page)[-1] if more else ("", "")
    told = [
        ("Bucket", bucket),
        ("KeyMarker", spell(wanted.key_marker)),
        ("UploadIdMarker", wanted.upload_marker),
        ("NextKeyMarker", spell(next_key)),
        ("NextUploadIdMarker", next_upload),
        ("Prefix", spell(wanted.prefix)),
        ("Delimiter", spell(wanted.delimiter)),
        ("EncodingType", "url" if wanted.encoded else ""),
        ("MaxUploads", str(wanted.most)),
        ("IsTruncated", str(more).lower()),
    ]
    return [
        *((name, value) for name, value in told if value or name in _ALWAYS),
        *(("Upload", _upload(each, spell, owner)) for each in page.values() if each is not None),
        *(("CommonPrefixes", [("Prefix", spell(key))]) for (key, _), each in page.items() if each is None),
    ]


def _common(key: str, wanted: UploadsWanted) -> str | None:
    """Return the prefix as which a key is told; None if it is told itself."""
    if not wanted.delimiter:
        return None
    before, delimiter, _ = key[len(wanted.prefix) :].partition(wanted.delimiter)
    return wanted.prefix + before + delimiter if delimiter else None


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
    """A part that is durable."""

    number: int
    etag: str
    size: int


def parts_page(parameters: Mapping[str, str], there: Iterable[ListedPart]) -> Tree:
    """Return the members of one page of an upload's parts, which come in order; Invalid for a count that is none."""
    most = min(_count(parameters, "max-parts", MAX_PARTS), MAX_PARTS)
    marker = _count(parameters, "part-number-marker", 0)
    found = [each for each in there if each.number > marker]
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
