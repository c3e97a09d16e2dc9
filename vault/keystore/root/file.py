"""Root-key provider on files. A version is destroyed by overwriting its file; findings warn of disks that keep copies.

Assurance is best effort: flash translation, copy-on-write file systems and snapshots can keep what was overwritten.
Layout in docs/format.md, "Keyring".
"""

from __future__ import annotations

import fcntl
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
from vault.keystore.replicas import Files
from vault.keystore.root import antiforensic
from vault.keystore.root.common import check_key, check_tag, finding, foreign, unwrap_bytes, wrap_bytes
from vault.model import Assurance, Finding
from vault.ports.keys import DestroyReceipt, VersionInfo
from vault.ports.time import Clock, Entropy
from vault.threads import in_thread

# -- the file system ----------------------------------------------------------------------------------------------

_HINT: Final = "keep root versions in a key service or a token, or on a plain partition without snapshots"
_DANGER: Final = {
    "btrfs": "copies on write: an overwritten root version stays on the disk until its extent is reused",
    "zfs": "copies on write: an overwritten root version stays on the disk, and in snapshots",
    "bcachefs": "copies on write: an overwritten root version stays on the disk until its extent is reused",
    "overlay": "is a container's layer: root versions are lost with the container, and may stay in a lower layer",
    "tmpfs": "is memory: root versions, and with them every recording, are lost at the next restart",
    "nfs": "is on another server: that server decides whether an overwrite reaches the same blocks",
    "nfs4": "is on another server: that server decides whether an overwrite reaches the same blocks",
}
_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_FICLONE: Final = 0x40049409
"""`_IOW(0x94, 9, int)` of linux/fs.h: make one file share another's blocks."""
_BLOCK_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The file system that holds a path."""

    kind: str
    options: frozenset[str]


def mount_of(path: Path, *, mounts: Path) -> Mount | None:
    """Return the file system that holds `path`, from a file in the format of /proc/mounts."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real = path.resolve()
    best: tuple[int, Mount] | None = None
    for line in lines:
        columns = line.split()
        if len(columns) < 4:  # noqa: PLR2004 - device, mount point, type, options
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), columns[1]))
        # Of equal mount points the last is the visible one.
        if real.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = len(point.parts), Mount(kind=columns[2], options=frozenset(columns[3].split(",")))
    return best[1] if best else None


def shares_blocks(directory: Path) -> bool:
    """Tell whether two files in `directory` can share blocks (reflink), by trying it with two unnamed files."""
    try:
        one = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError:
        return False
    try:
        os.write(one, bytes(_BLOCK_BYTES))
        other = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            fcntl.ioctl(other, _FICLONE, one)
        finally:
            os.close(other)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(one)


def rotates(directory: Path, *, devices: Path) -> bool | None:
    """Tell whether the device reports a rotating disk; None if the file system is not on one block device."""
    number = directory.stat().st_dev
    block = devices / f"{os.major(number)}:{os.minor(number)}"
    # A partition has no queue of its own; its disk has.
    for queue in (block / "queue", block.resolve().parent / "queue"):
        try:
            return (queue / "rotational").read_text(encoding="ascii").strip() == "1"
        except OSError:
            continue
    return None


def filesystem_findings(
    path: Path,
    *,
    mounts: Path = Path("/proc/self/mounts"),
    devices: Path = Path("/sys/dev/block"),
    reflinks: Callable[[Path], bool] = shares_blocks,
) -> Sequence[Finding]:
    """Warn of file systems and devices that may keep data which was overwritten in place."""
    mount = mount_of(path, mounts=mounts)
    if mount is not None and mount.kind in _DANGER:
        return (finding("warning", f"{path} is on {mount.kind}, which {_DANGER[mount.kind]}", _HINT),)
    kind = mount.kind if mount else "an unknown file system"
    found = []
    if reflinks(path):
        text = f"{path} is on {kind} with reflinks: a copy made by sharing blocks keeps what an overwrite replaces"
        found.append(finding("warning", text, "take no snapshots or reflink copies of it; make xfs with -m reflink=0"))
    return (*found, _device_finding(path, kind, mount, rotating=rotates(path, devices=devices)))


def _device_finding(path: Path, kind: str, mount: Mount | None, *, rotating: bool | None) -> Finding:
    if rotating:
        text = f"{path} is on {kind} on a disk that says it rotates: remapped sectors and snapshots below"
        return finding("warning", f"{text} cannot be seen from here, so destruction is best effort", _HINT)
    if rotating is None:
        text = f"{path} is on {kind}: whether the device below remaps, discards or snapshots blocks"
        return finding("warning", f"{text} cannot be known from here, so destruction is best effort", _HINT)
    if mount is not None and "discard" in mount.options:
        text = (
            f"{path} is on {kind} on flash: an overwrite goes to fresh cells; freed blocks are discarded, but the old"
        )
        return finding("warning", f"{text} cells stay until the drive erases them", _HINT)
    text = f"{path} is on {kind} on flash without discard: an overwrite goes to fresh cells, and the old ones stay"
    return finding("warning", text, f"mount it with discard, or run fstrim after each sweep; better, {_HINT}")


# -- the provider -------------------------------------------------------------------------------------------------

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
                f"the root-key directory {self._directory} is missing or incomplete; nothing is known to be lost",
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
        # `replace` writes to a temporary name first, so a version's file is complete or absent.
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
            raise FormatError(f"{path.name} has another version's header")
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
