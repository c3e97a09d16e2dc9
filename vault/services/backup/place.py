"""A backup destination: seals parts and manifests on writing, and verifies them on reading."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from vault.crypto.backup import open_manifest, open_part, seal_manifest, seal_part
from vault.crypto.derive import open_with_any
from vault.errors import IntegrityError, NotFound, Unavailable
from vault.format import backup as layout
from vault.format.backup import BackedObject, BackedRecording, BackupManifest, Part, PartHeader, RowRange
from vault.format.names import tenant_prefix
from vault.ids import TenantId
from vault.model import DataKey
from vault.ports.objects import ObjectMeta, ObjectStore
from vault.ports.time import Entropy
from vault.threads import in_thread

_SALT_BYTES = 24
_CLASS = "backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """What an earlier backup has of the catalog; a range without digest is to be read again."""

    schema_revision: str
    ranges: Sequence[RowRange]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A backup at the destination; `manifest` is None if it does not open, and `problem` says why."""

    backup: str
    manifest: BackupManifest | None
    problem: str = ""


class BackupPlace:
    """One destination, with the backup keys: the first key seals, and each of them may open."""

    def __init__(self, *, store: ObjectStore, keys: Sequence[DataKey], keyring: bytes, entropy: Entropy) -> None:
        self.store = store
        self._keys = tuple(keys)
        self._keyring = keyring
        self._entropy = entropy

    # -- writing ------------------------------------------------------------------------------------------------

    async def put_part(self, backup: str, kind: str, index: int, plaintext: bytes, *, at: datetime) -> Part:
        """Seal one part and store it; durable when it returns."""
        header = PartHeader(backup=backup, keyring=self._keyring, kind=kind, index=index)
        data = await in_thread(seal_part, self._keys[0], header, plaintext, salt=self._entropy(_SALT_BYTES))
        return await self._put(header.name, data, at)

    async def put_manifest(self, manifest: BackupManifest, *, at: datetime) -> None:
        """Store the manifest, which makes the backup exist; all parts and objects that it names must be durable."""
        await self._put(layout.manifest_name(manifest.backup), seal_manifest(self._keys[0], manifest), at)

    async def check_present(self, manifest: BackupManifest) -> None:
        """Unavailable if a part that the manifest names is no longer there."""
        names = {info.name async for info in self.store.list(layout.SNAPSHOTS)}
        if any(part.name not in names for part in manifest.parts):
            raise Unavailable(
                "parts of an earlier backup were removed meanwhile; no backup was made", hint="make it again"
            )

    async def put_marker(self, name: str, *, at: datetime) -> None:
        """Store a marker for other processes that use this destination."""
        await self._put(name, b"callvault", at)

    async def forget(self, backup: str, *, needed: Collection[str] = ()) -> None:
        """Remove a backup, except the parts that are `needed` by others.

        Its manifest goes first, so that it is complete or does not exist.
        """
        await self.store.delete(layout.manifest_name(backup))
        for name in [info.name async for info in self.store.list(layout.snapshot_prefix(backup))]:
            if name not in needed:
                await self.store.delete(name)

    async def _put(self, name: str, data: bytes, at: datetime) -> Part:
        sha256 = hashlib.sha256(data).hexdigest()
        meta = ObjectMeta(retain_until=at, retention_class=_CLASS, sha256=sha256)
        await self.store.put(name, [data], meta=meta)
        return Part(name=name, size=len(data), sha256=sha256)

    # -- reading ------------------------------------------------------------------------------------------------

    async def snapshots(self) -> Mapping[str, Sequence[str]]:
        """Return the names under each backup's prefix, oldest first, also of incomplete backups."""
        found: dict[str, list[str]] = {}
        async for info in self.store.list(layout.SNAPSHOTS):
            backup, _, rest = info.name.removeprefix(layout.SNAPSHOTS).partition("/")
            found.setdefault(backup, []).append(rest)
        return dict(sorted(found.items()))

    async def backups(self) -> Sequence[Listed]:
        """Return every complete backup, oldest first."""
        listed: list[Listed] = []
        for backup, names in (await self.snapshots()).items():
            if layout.MANIFEST not in names:
                continue
            try:
                listed.append(Listed(backup=backup, manifest=await self.manifest(backup)))
            except IntegrityError as error:
                listed.append(Listed(backup=backup, manifest=None, problem=error.message))
        return listed

    async def newest(self) -> str:
        """Return the newest complete backup; NotFound if there is none."""
        existing = [each for each, names in (await self.snapshots()).items() if layout.MANIFEST in names]
        if not existing:
            raise NotFound("there is no backup at this destination", hint="make one: callvault backup create")
        return existing[-1]

    async def former(self) -> Former | None:
        """Return what the newest backup has of the catalog, as far as its parts are there; None if it is of no use.

        Only what is sealed under the key of today is: a copy of an older key opens no part of a later backup.
        """
        sizes = {info.name: info.size async for info in self.store.list(layout.SNAPSHOTS)}
        names = [name for name in sizes if name.endswith(f"/{layout.MANIFEST}")]
        if not names:
            return None
        try:
            manifest = await self._manifest(max(names).split("/")[1], self._keys[:1])
            ranges = await self.ranges(manifest)
        except (IntegrityError, NotFound):
            return None
        whole = [all(sizes.get(part.name) == part.size for part in each.parts) for each in ranges]
        return Former(
            schema_revision=manifest.schema_revision,
            ranges=[each if there else replace(each, digest=b"") for each, there in zip(ranges, whole, strict=True)],
        )

    async def manifest(self, backup: str) -> BackupManifest:
        """Return an authenticated manifest; NotFound, or an IntegrityError if it is not this vault's."""
        return await self._manifest(backup, self._keys)

    async def _manifest(self, backup: str, keys: Sequence[DataKey]) -> BackupManifest:
        try:
            data = await self.store.get(layout.manifest_name(backup))
        except NotFound as error:
            raise NotFound(
                f"there is no backup {backup} at this destination", hint="callvault backup list shows the backups"
            ) from error
        manifest = open_with_any(keys, lambda key: open_manifest(key, data))
        if (manifest.backup, manifest.keyring) != (backup, self._keyring.hex()):
            raise IntegrityError(f"the manifest of {backup} names another backup or keyring; it was not used")
        return manifest

    async def part(self, part: Part) -> bytes:
        """Return the plaintext of one part, checked against the manifest; an IntegrityError says what is wrong."""
        header = PartHeader.named(part.name, self._keyring)
        try:
            data = await self.store.get(part.name)
        except NotFound as error:
            raise IntegrityError(f"{part.name} is missing from the destination") from error
        if len(data) != part.size or hashlib.sha256(data).hexdigest() != part.sha256:
            raise IntegrityError(f"{part.name} was changed: its size or hash differs from the manifest")
        return await in_thread(open_with_any, self._keys, lambda key: open_part(key, header, data))

    async def tables(self, manifest: BackupManifest) -> AsyncIterator[layout.TableRows]:
        """Yield the catalog dump, with one part in memory at a time."""
        for part in manifest.of_kind(layout.CATALOG):
            for section in layout.decode_tables(await self.part(part)):
                yield section

    async def ranges(self, manifest: BackupManifest) -> Sequence[RowRange]:
        """Return what each catalog part has; nothing for a backup that is from before there were ranges."""
        catalog = manifest.of_kind(layout.CATALOG)
        for part in manifest.of_kind(layout.RANGES):
            return layout.decode_ranges(await self.part(part), catalog)
        return []

    async def recordings(self, manifest: BackupManifest) -> AsyncIterator[BackedRecording]:
        """Yield the objects list, with one part in memory at a time; recordings of one tenant are consecutive."""
        for part in manifest.of_kind(layout.OBJECTS):
            for recording in layout.decode_objects(await self.part(part)):
                yield recording

    async def issuer(self, manifest: BackupManifest) -> bytes | None:
        """Return the certificate issuer's private key as PEM, if the backup has it."""
        for part in manifest.of_kind(layout.ISSUER):
            return await self.part(part)
        return None

    # -- the pool -----------------------------------------------------------------------------------------------

    async def pooled(self, tenant: TenantId) -> Mapping[str, int]:
        """Return the sizes of one tenant's objects in the pool, by their own names."""
        sizes: dict[str, int] = {}
        async for info in self.store.list(layout.pool_name(tenant_prefix(tenant))):
            sizes[info.name.removeprefix(layout.POOL)] = info.size
        return sizes

    async def object(self, item: BackedObject) -> bytes:
        """Return one object of the pool; IntegrityError if it is missing or does not have the listed hash."""
        try:
            data = await self.store.get(layout.pool_name(item.name))
        except NotFound as error:
            raise IntegrityError(f"{item.name} is missing from the pool") from error
        return await verified(item, data)


async def verified(item: BackedObject, data: bytes) -> bytes:
    """Return `data` if it has the size and hash of the object; IntegrityError."""
    digest = await in_thread(hashlib.sha256, data)
    if len(data) != item.size or digest.hexdigest() != item.sha256:
        raise IntegrityError(f"{item.name} was changed: its size or hash differs from the catalog")
    return data
