"""Root-key provider on files: one anti-forensically split file per version, overwritten in place to destroy it.

Assurance is best effort: flash translation, copy-on-write file systems and snapshots can keep what was overwritten.
Layout in docs/format.md, "Keyring".
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from vault.errors import ConfigError, Destroyed, FormatError, Unavailable
from vault.format.codec import fields, pack, unpack
from vault.keystore.files import Files
from vault.keystore.root import antiforensic
from vault.keystore.root.common import check_key, check_tag, finding, foreign, unwrap_bytes, wrap_bytes
from vault.keystore.root.mounts import filesystem_findings
from vault.model import Assurance, Finding
from vault.ports.keys import DestroyReceipt, VersionInfo
from vault.ports.time import Clock, Entropy
from vault.threads import in_thread

MARKER: Final = "ROOT-KEYS"
MATERIAL_BYTES: Final = 256 << 10
_FORMAT: Final = 1
_ID_BYTES: Final = 8
_PREFIX: Final = struct.Struct(">4sI")
_MAGIC: Final = b"CVRK"
_HEADER_MAX_BYTES: Final = 512
_VERSION: Final = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}")
_UNFINISHED: Final = ".new"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _VersionFile:
    info: VersionInfo
    header: bytes
    material: bytes = field(repr=False)


class FileRootKeys:
    """Keeps each root version in a file of its own in a private directory.

    A version's name carries the id of the store that made it. A directory that is missing, unreadable, unmarked or of
    another store is Unavailable: only the store that made a version can say that it is destroyed.
    """

    name = "file"
    assurance = Assurance.BEST_EFFORT

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        entropy: Entropy = os.urandom,
        files: Files | None = None,
        below: Callable[[Path], Sequence[Finding]] = filesystem_findings,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._entropy = entropy
        self._files = files or Files()
        self._below = below

    async def create(self) -> str:
        """Make the store; ConfigError if the directory holds anything. Only `init` calls this."""
        await in_thread(self._create)
        return f"root keys in {self._directory}: exactly one is live; never back them up"

    async def owns(self, version: str) -> bool:
        """Tell whether this store made the version; Unavailable if the directory cannot say which store it is."""
        match = _VERSION.fullmatch(version)
        return match is not None and match[1] == await in_thread(self._guarded, str)

    async def new_version(self, tag: bytes) -> str:
        """Create a version, durable when this returns."""
        check_tag(tag)
        return await in_thread(self._guarded, self._new_version, tag)

    async def wrap(self, version: str, key: bytes, aad: bytes) -> bytes:
        """Encrypt 32 bytes under the version."""
        check_key(key)
        root = await in_thread(self._guarded, self._root, version)
        return wrap_bytes(root, version, key, aad, self._entropy)

    async def unwrap(self, version: str, blob: bytes, aad: bytes) -> bytes:
        """Decrypt; Destroyed, Tampered or Unavailable as the port says."""
        root = await in_thread(self._guarded, self._root, version)
        return unwrap_bytes(root, version, blob, aad)

    async def destroy(self, version: str) -> DestroyReceipt:
        """Overwrite the version's key material in place, then remove the file."""
        await in_thread(self._guarded, self._destroy, version)
        return DestroyReceipt(version=version, effective_at=self._clock.now())

    async def versions(self) -> Mapping[str, VersionInfo]:
        """List the live versions; one unreadable file makes the whole answer Unavailable."""
        return await in_thread(self._guarded, self._versions)

    async def self_check(self) -> Sequence[Finding]:
        """Report modes, file system and unreadable files."""
        return await in_thread(self._self_check)

    def _guarded(self, call: Callable[..., _T], *args: object) -> _T:
        """Run `call` with the store's id; Unavailable if the directory is no complete store or a file is damaged."""
        try:
            return call(self._store_id(), *args)
        except FileNotFoundError as error:
            raise Unavailable(
                f"the root-key directory {self._directory} is not there or not complete; nothing is known to be lost",
                hint="mount it, or point keyring.root_keys at it",
            ) from error
        except FormatError as error:
            raise Unavailable(f"a file in {self._directory} is damaged: {error.message}") from error

    def _create(self) -> None:
        self._files.make_directory(self._directory)
        if self._files.names(self._directory):
            raise ConfigError(
                f"the root-key directory {self._directory} is not empty; nothing was changed",
                hint="keyring.root_keys names a new directory for a new vault",
            )
        marker = pack({"format": _FORMAT, "kind": "root keys", "store": self._entropy(_ID_BYTES)})
        self._files.replace(self._directory / MARKER, marker)

    def _store_id(self) -> str:
        version, kind, store = fields(
            unpack(self._files.read(self._directory / MARKER)), format=int, kind=str, store=bytes
        )
        if version != _FORMAT or kind != "root keys" or len(store) != _ID_BYTES:
            raise FormatError(f"{MARKER} is not the marker of a root-key directory of format 1")
        return str(store.hex())

    def _path(self, store: str, version: str) -> Path:
        match = _VERSION.fullmatch(version)
        if match is None or match[1] != store:
            raise foreign(version)
        return self._directory / version

    def _new_version(self, store: str, tag: bytes) -> str:
        self._wipe_unfinished()
        version = f"{store}-{self._entropy(_ID_BYTES).hex()}"
        created_ms = (self._clock.now() - _EPOCH) // timedelta(milliseconds=1)
        header = pack({"format": _FORMAT, "version": version, "tag": tag, "created_ms": created_ms})
        secret = self._entropy(32) + hashlib.sha256(header).digest()
        material = antiforensic.split(secret, MATERIAL_BYTES // antiforensic.STRIPE_BYTES, self._entropy)
        # `replace` writes to a temporary name first: a version's file is whole or not there at all.
        self._files.replace(self._directory / version, _PREFIX.pack(_MAGIC, len(header)) + header + material)
        return version

    def _wipe_unfinished(self) -> None:
        """Destroy temporary files that a crash inside `new_version` left; they wrapped nothing."""
        for name in self._files.names(self._directory):
            if name.startswith(".") and name.endswith(_UNFINISHED):
                self._wipe(self._directory / name, 0)

    def _wipe(self, path: Path, offset: int) -> None:
        length = len(self._files.read(path)) - offset
        self._files.overwrite(path, offset, self._entropy(length))
        self._files.unlink(path)

    def _destroy(self, store: str, version: str) -> None:
        path = self._path(store, version)
        self._wipe_unfinished()
        if version in self._files.names(self._directory):
            # The header stays readable until the unlink, so a crash in between leaves a version that is still listed
            # and will be destroyed again, not an unreadable file that blocks every listing.
            self._wipe(path, len(self._read(path).header) + _PREFIX.size)
        if version in self._files.names(self._directory):
            raise Unavailable(f"root version {version} is still listed after it was removed")

    def _root(self, store: str, version: str) -> bytes:
        path = self._path(store, version)
        if version not in self._files.names(self._directory):
            raise Destroyed(f"root version {version} was destroyed")
        found = self._read(path)
        secret = antiforensic.merge(found.material)
        if not hmac.compare_digest(secret[32:], hashlib.sha256(found.header).digest()):
            raise FormatError(f"root version {version} does not match its header")
        return secret[:32]

    def _versions(self, store: str) -> Mapping[str, VersionInfo]:
        names = [name for name in self._files.names(self._directory) if _VERSION.fullmatch(name)]
        return {name: self._read(self._path(store, name)).info for name in names}

    def _read(self, path: Path) -> _VersionFile:
        data = self._files.read(path)
        if len(data) < _PREFIX.size:
            raise FormatError(f"{path.name} is too short")
        magic, length = _PREFIX.unpack_from(data)
        if magic != _MAGIC or length > _HEADER_MAX_BYTES or len(data) != _PREFIX.size + length + MATERIAL_BYTES:
            raise FormatError(f"{path.name} is not a root version of format 1")
        header = data[_PREFIX.size : _PREFIX.size + length]
        version, name, tag, created_ms = fields(unpack(header), format=int, version=str, tag=bytes, created_ms=int)
        if version != _FORMAT or name != path.name:
            raise FormatError(f"{path.name} holds another version's header")
        created_at = _EPOCH + timedelta(milliseconds=created_ms)
        info = VersionInfo(version=name, tag=tag, created_at=created_at)
        return _VersionFile(info=info, header=header, material=data[_PREFIX.size + length :])

    def _self_check(self) -> Sequence[Finding]:
        try:
            live = self._guarded(self._versions)
            for version in live:
                self._guarded(self._root, version)
        except Unavailable as error:
            return (finding("error", error.message, error.hint),)
        found = [finding("ok", f"{len(live)} live root version(s), all readable")]
        for path, mode in [(self._directory, 0o700), *((self._directory / version, 0o600) for version in live)]:
            actual = stat.S_IMODE(path.stat().st_mode)
            if actual != mode:
                text = f"{path} has mode {actual:04o} instead of {mode:04o}"
                found.append(finding("warning", text, f"chmod {mode:o} {path}"))
        return (*found, *self._below(self._directory))
