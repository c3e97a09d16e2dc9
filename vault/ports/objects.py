"""The object store: immutable named byte strings with their retention."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from vault.errors import VaultError
from vault.model import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMeta:
    """The retention of an object: in store metadata and tags, and as Object Lock if the store supports it."""

    retain_until: datetime
    retention_class: str
    sha256: str
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What the store reports about an object."""

    name: str
    size: int
    meta: ObjectMeta | None = None


class Deletion(NamedTuple):
    """The outcome of deleting a name: how many versions and unfinished multipart uploads were deleted.

    `absent` tells whether none is left.
    """

    name: str
    versions_deleted: int
    absent: bool
    detail: str = ""


class ObjectStore(Protocol):
    """Immutable named byte strings. Methods raise Unavailable in an outage; that does not mean absence."""

    kind: str
    """Short name used in metrics: memory, filesystem, s3."""

    async def put(self, name: str, chunks: Sequence[bytes | memoryview], *, meta: ObjectMeta) -> ObjectInfo:
        """Store the concatenation of `chunks` whole or not at all; durable when it returns.

        Raises IntegrityError unless the store then reports that size under that name. Repeating a put of the same bytes
        succeeds.
        """

    async def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes `[start, start + length)`, fewer only at the object's end; NotFound if the name is absent."""

    async def stat(self, name: str) -> ObjectInfo:
        """Return size and retention of the object; NotFound if absent."""

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield the current objects whose name starts with `prefix`, in name order (`meta` may be None).

        An S3 store may order tenants differently; the names of one tenant are in order.
        """

    async def set_held(self, name: str, *, held: bool) -> None:
        """Record a hold in tags, and as Object Lock legal hold if the store supports it; NotFound if absent."""

    async def delete(self, name: str) -> Deletion:
        """Delete all versions of the name and its unfinished multipart uploads, then check that none is left.

        Deleting an absent name succeeds with `absent=True`. If a lock still forbids the deletion, `absent` is False.
        """

    async def delete_below(
        self, places: Mapping[str, Collection[str]]
    ) -> Mapping[str, Sequence[Deletion] | VaultError]:
        """Delete every object below each prefix, and check that none is left, as `delete` does with one name.

        `places` are prefixes that end in "/", none inside another, and the names that are known below each. The answer
        has an outcome for every prefix: a Deletion of each name that was known or found, in order, or the error for
        which it is not known what is left there. Unavailable if nothing is known of any.
        """

    async def still_there(self) -> None:
        """Raise Unavailable if the store that was opened is no longer in its place: a disk was unmounted, for example.

        A service that does not answer is not such a case.
        """

    async def check(self) -> Sequence[Finding]:
        """Return findings for `callvault doctor`: reachability, region, encryption, versioning, lock, leftovers."""

    async def close(self) -> None:
        """Close connections; closing again is allowed."""
