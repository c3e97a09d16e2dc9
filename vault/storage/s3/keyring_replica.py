"""A keyring replica in an S3 bucket: heads are swapped by conditional writes (docs/format.md, "Keyring").

The bucket must not be versioned. Superseded heads open nothing, because their root version is destroyed; in a versioned
bucket that would be the only defence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from vault.errors import ConfigError, NotFound, Unavailable, VaultError
from vault.format.keyring import HEAD, INDEX, PAGES
from vault.model import Finding
from vault.storage.s3.client import S3Settings, answered, bucket_location, code_of, new_client

_TRANSFERS: Final = 16
_MISMATCH: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})


class BucketReplica:
    """Implements `vault.ports.keys.KeyringStore` below a prefix of an existing bucket."""

    def __init__(self, settings: S3Settings, prefix: str) -> None:
        self.name = f"s3://{settings.bucket}/{prefix}".rstrip("/")
        self._settings = settings
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._opening = asyncio.Lock()
        self._transfers = asyncio.Semaphore(_TRANSFERS)
        self._unversioned = False

    async def initialise(self) -> bool:
        """Make the bucket if there is none; False if the prefix holds anything. ConfigError for a versioned bucket."""
        try:
            await self._require_unversioned()
        except Unavailable as error:
            if code_of(error) != "NoSuchBucket":
                raise
            await self._call("create_bucket", **bucket_location(self._settings))
            await self._require_unversioned()
        return not await self._list("")

    async def read(self, names: Sequence[str]) -> Mapping[str, bytes | None]:
        """GET each file; a file counts as absent only if the store knows the bucket."""
        return dict(zip(names, await asyncio.gather(*(self._get(name) for name in names)), strict=True))

    async def _get(self, name: str) -> bytes | None:
        found = await self._get_tagged(name)
        return found[0] if found else None

    async def _get_tagged(self, name: str) -> tuple[bytes, str] | None:
        try:
            async with self._transfers, answered("get_object", self._settings):
                client = await self._connected()
                answer = await client.get_object(Bucket=self._settings.bucket, Key=self._prefix + name)
                async with answer["Body"]:
                    return await answer["Body"].read(), str(answer["ETag"])
        except NotFound:
            # Over GET a missing bucket has a code of its own, which some stores do not send; so the bucket is checked.
            await self._call("head_bucket")
            return None

    async def write(self, blobs: Mapping[str, bytes]) -> None:
        """PUT each blob."""
        await self._require_unversioned()
        await asyncio.gather(*(self._put(name, data) for name, data in blobs.items()))

    async def _put(self, name: str, data: bytes, **conditions: str) -> None:
        async with self._transfers:
            await self._call("put_object", Key=self._prefix + name, Body=data, **conditions)

    async def swap(self, expected: bytes | None, head: bytes) -> bool:
        """PUT on the condition that the head is still the one just read, then read the head back."""
        await self._require_unversioned()
        found = await self._get_tagged(HEAD)
        if (found[0] if found else None) != expected:
            return False
        for condition in _conditions(found[1] if found else None):
            try:
                await self._put(HEAD, head, **condition)
                break
            except Unavailable as error:
                if code_of(error) not in _MISMATCH:
                    raise
        # A store may ignore conditions, and a retry may follow its own success: only the head that is there now counts.
        return await self._get(HEAD) == head

    async def remove(self, names: Sequence[str]) -> None:
        """DELETE each file."""
        await asyncio.gather(*(self._remove(name) for name in names))

    async def _remove(self, name: str) -> None:
        async with self._transfers:
            await self._call("delete_object", Key=self._prefix + name)

    async def names(self) -> AbstractSet[str]:
        """List both prefixes of blobs."""
        return {name for place in (INDEX, PAGES) for name in await self._list(f"{place}/")}

    async def _list(self, prefix: str) -> list[str]:
        found: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = await self._call("list_objects_v2", Prefix=self._prefix + prefix, **token)
            found += [item["Key"].removeprefix(self._prefix) for item in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return found
            token = {"ContinuationToken": page["NextContinuationToken"]}

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Exclude nobody: writers on several machines take the cluster's lock, and `swap` decides."""
        yield

    async def check(self) -> Sequence[Finding]:
        """Report a versioned bucket."""
        try:
            self._unversioned = False
            await self._require_unversioned()
        except VaultError as error:
            return (Finding(level="error", subject="keyring", message=error.message, hint=error.hint),)
        return (Finding(level="ok", subject="keyring", message=f"the bucket of {self.name} keeps no old versions"),)

    async def close(self) -> None:
        """Close the client; idempotent."""
        await self._stack.aclose()
        self._client = None

    async def _require_unversioned(self) -> None:
        if self._unversioned:
            return
        status = (await self._call("get_bucket_versioning")).get("Status")
        if status:
            raise ConfigError(
                f"the bucket of the keyring replica {self.name} is versioned ({status}): it keeps every old keyring",
                hint="use a bucket that never had versioning or Object Lock",
            )
        self._unversioned = True

    async def _connected(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._client = await self._stack.enter_async_context(new_client(self._settings))
            return self._client

    async def _call(self, operation: str, **parameters: Any) -> Any:
        async with answered(operation, self._settings):
            client = await self._connected()
            return await getattr(client, operation)(Bucket=self._settings.bucket, **parameters)


def _conditions(etag: str | None) -> Sequence[Mapping[str, str]]:
    """Return the ways to write the condition: most stores want the tag as they sent it, some without quotes."""
    if etag is None:
        return ({"IfNoneMatch": "*"},)
    return ({"IfMatch": etag}, {"IfMatch": etag.strip('"')})
