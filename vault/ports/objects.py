"""The object store: immutable named byte strings that carry their retention."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from vault.model import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMeta:
    """Retention metadata an object carries, as store metadata and tags; Object Lock where the store has it."""

    retain_until: datetime
    retention_class: str
    sha256: str
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What the store says it holds under a name."""

    name: str
    size: int
    meta: ObjectMeta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Outcome of deleting one name: how many versions and abandoned multiparts went, and whether none is left."""

    name: str
    versions_deleted: int
    absent: bool
    detail: str = ""


class ObjectStore(Protocol):
    """Immutable named byte strings. Every method raises Unavailable for outages and never reads one as absence."""

    kind: str
    """Short name used in metrics: memory, filesystem, s3."""

    async def put(self, name: str, chunks: Sequence[bytes | memoryview], *, meta: ObjectMeta) -> ObjectInfo:
        """Store the concatenation of `chunks` whole or not at all; durable when it returns.

        Verifies that the store now reports exactly that size under that name, else raises IntegrityError.
        Repeating a put of the same bytes succeeds.
        """

    async def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes `[start, start + length)`, fewer only at the object's end. NotFound if the name is absent."""

    async def stat(self, name: str) -> ObjectInfo:
        """Describe the object, including its `meta`; NotFound if absent."""

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield the current objects whose name starts with `prefix`, in name order (`meta` may be None).

        Across tenants an S3 store may keep an order of its own; the names of one tenant are always in order.
        """

    async def set_held(self, name: str, *, held: bool) -> None:
        """Record the hold state in tags, and as Object Lock legal hold where supported; NotFound if absent."""

    async def delete(self, name: str) -> Deletion:
        """Remove every version of the name and its abandoned multiparts, then look again.

        Deleting an absent name succeeds with `absent=True`. A lock that still forbids it gives `absent=False`.
        """

    async def still_there(self) -> None:
        """Raise Unavailable if another store, or none, is seen in the place of the one that was opened.

        That does not pass by itself: a disk was unmounted or a directory moved. A service that does not answer is
        nothing of the kind.
        """

    async def check(self) -> Sequence[Finding]:
        """Return findings for `doctor`: reachability, region, encryption, versioning, lock, leftovers."""

    async def close(self) -> None:
        """Release connections; idempotent."""
