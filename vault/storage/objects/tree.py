"""The blocking half of the filesystem object store: one directory tree, and the layout of an object in it.

    ROOT/CALLVAULT-OBJECTS                                        the marker; made by `create_tree` alone
    ROOT/tmp/<random>                                             puts under way
    ROOT/objects/v1/<tenant>/<period>/<recording>/<leaf>#object   one file for each object

A name's directories are the tree's directories, so no directory holds more than one day's recordings and a listing in
name order needs no memory beyond one directory. `#` occurs in no name: object `a` and the directory of `a/b` differ.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

from vault.disk import answering, make_directories, refusal, share_lock, sync_directory, try_lock, write_new
from vault.errors import ConfigError, FormatError, IntegrityError, NotFound, Unavailable, VaultError
from vault.format.codec import fields, pack, unpack
from vault.places import is_settled, unusable
from vault.ports.objects import Deletion, ObjectInfo, ObjectMeta
from vault.storage.objects.names import meta_texts, parse_meta_texts

# -- the layout of a file -----------------------------------------------------------------------------------------
# The layout of one object in the filesystem store: a header of fixed size, then the object's bytes.
#
# One file holds bytes and metadata, so neither can appear or vanish without the other, and an object is always one
# rename and one unlink. The header has a fixed size, so a range read is one `pread` at a known offset, and the hold
# state is one byte at a fixed place, so changing it in place is atomic.
#
#     "CVO1" | held, 1 byte: 0 or 1 | u16 length | canonical msgpack map, zero-padded to 512 bytes | bytes of the object

HEADER_BYTES: Final = 512
HELD_OFFSET: Final = 4

_MAGIC: Final = b"CVO1"
_FRAME: Final = struct.Struct(">4sBH")


def encode_header(meta: ObjectMeta) -> bytes:
    """Return the 512 bytes that precede an object's own; `meta` must have passed `check_meta`, so that it fits."""
    texts = meta_texts(meta)
    del texts["held"]
    packed = pack(texts)
    header = _FRAME.pack(_MAGIC, meta.held, len(packed)) + packed
    return header.ljust(HEADER_BYTES, b"\0")


def decode_header(header: bytes) -> ObjectMeta:
    """Return the metadata; FormatError for any bytes that `encode_header` does not produce."""
    if len(header) != HEADER_BYTES:
        raise FormatError(f"an object file of {len(header)} bytes is shorter than its header")
    magic, held, length = _FRAME.unpack_from(header)
    end = _FRAME.size + length
    if magic != _MAGIC or held not in (0, 1) or end > HEADER_BYTES or any(header[end:]):
        raise FormatError("an object file without a valid header")
    texts = unpack(header[_FRAME.size : end])
    keys = ("retain-until", "retention-class", "sha256")
    values = fields(texts, **dict.fromkeys(keys, str))
    return parse_meta_texts({**dict(zip(keys, values, strict=True)), "held": "true" if held else "false"})


def held_byte(*, held: bool) -> bytes:
    """Return the byte that belongs at `HELD_OFFSET`."""
    return b"\1" if held else b"\0"


# -- the directory tree -------------------------------------------------------------------------------------------

MARKER: Final = "CALLVAULT-OBJECTS"

_LAYOUT: Final = b"callvault objects 1\n"
_OBJECTS: Final = "objects"
_TMP: Final = "tmp"
_SUFFIX: Final = "#object"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW
_KNOWN_DIRECTORIES: Final = 100_000
_PLACING_ATTEMPTS: Final = 16
_GONE: Final = (
    "put it back, or mount its disk there; if it is now another directory, restart the server. Never make an empty "
    "one in its place"
)


def translated(what: str) -> contextlib.AbstractContextManager[None]:
    """Turn an OSError into DiskFull or Unavailable; a failed read never counts as absence."""
    full = f"no room left on the disk of the object store: {what} was not stored"
    return answering(full=full, failed=f"the object store cannot serve {what}")


@contextlib.contextmanager
def _opened(root: Path) -> Iterator[None]:
    """Translate errors of opening a whole store; permanent ones become a ConfigError."""
    with translated(str(root)):
        try:
            yield
        except OSError as error:
            if not is_settled(error):
                raise
            raise unusable(root, error, setting="objects.path") from error


def create_tree(root: Path) -> None:
    """Make `root` an empty object store; an existing store stays as it is. ConfigError if it has other files.

    The marker is written last: a crash before it leaves no store, and the next `create_tree` completes it.
    """
    with _opened(root):
        make_directories(root)
        if not (root / MARKER).exists():
            if {each.name for each in root.iterdir()} - {_OBJECTS, _TMP}:
                raise ConfigError(f"objects.path: {root} has files but is not an object store; nothing was changed")
            for name in (_OBJECTS, _TMP):
                (root / name).mkdir(mode=0o700, exist_ok=True)
            staged = root / _TMP / MARKER
            staged.unlink(missing_ok=True)
            write_new(staged, [_LAYOUT])
            staged.rename(root / MARKER)
        sync_directory(root)


class ObjectTree:
    """Blocking operations on one store; safe from many threads, and from many processes on one machine.

    Every path is relative to the root directory opened here. So a disk that is unmounted under a running server gives
    errors; by path, the empty mount point would make every object look absent. A root that was moved away can still be
    read, but nothing is written to it or deleted from it.
    """

    def __init__(self, root: Path, *, tidies: bool = True) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._durable: set[str] = set()
        with _opened(root):
            try:
                self._root = os.open(root, _READ | os.O_DIRECTORY)
            except FileNotFoundError:
                raise _no_store(root) from None
            try:
                self._marker = self._open_marker()
                self._remove_leftovers(tidies=tidies)
            except BaseException:
                os.close(self._root)
                raise

    def close(self) -> None:
        """Release the root; idempotent."""
        if self._root >= 0:
            os.close(self._marker)
            os.close(self._root)
            self._root = self._marker = -1

    def put(self, name: str, chunks: Sequence[bytes | memoryview], size: int, meta: ObjectMeta) -> None:
        """Store one object durably, whole or not at all."""
        with translated(name):
            self.require_place()
            staged = f"{_TMP}/{uuid4().hex}"
            try:
                self._write(staged, encode_header(meta), chunks)
                # Data before name: in the other order a crash could leave a name without its bytes.
                self._place(staged, name)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(staged, dir_fd=self._root)
                raise
            self._sync_directory(_directory(name))
            stored = os.stat(_path(name), dir_fd=self._root, follow_symlinks=False).st_size
        if stored != HEADER_BYTES + size:
            raise IntegrityError(f"{name} was stored as {stored - HEADER_BYTES} bytes instead of {size}")

    def get(self, name: str, start: int, length: int | None) -> bytes:
        """Read a range with one `pread`."""
        with self._opened(name, os.O_RDONLY) as handle:
            size = _body_bytes(name, handle)
            wanted = max(0, size - start if length is None else min(length, size - start))
            data = os.pread(handle, wanted, HEADER_BYTES + start)
        if len(data) != wanted:
            raise Unavailable(f"the disk returned {len(data)} of {wanted} bytes of {name}")
        return data

    def stat(self, name: str) -> ObjectInfo:
        """Describe one object."""
        with self._opened(name, os.O_RDONLY) as handle:
            size = _body_bytes(name, handle)
            header = os.pread(handle, HEADER_BYTES, 0)
        return ObjectInfo(name=name, size=size, meta=decode_header(header))

    def set_held(self, name: str, *, held: bool) -> None:
        """Overwrite the byte that holds the hold state, and wait until the disk has it."""
        with self._opened(name, os.O_RDWR) as handle:
            self.require_place()
            decode_header(os.pread(handle, HEADER_BYTES, 0))
            os.pwrite(handle, held_byte(held=held), HELD_OFFSET)
            os.fdatasync(handle)

    def delete(self, name: str) -> Deletion:
        """Remove one object, make that durable, remove empty directories, and check that it is absent."""
        with translated(name):
            self.require_place()
            deleted = 1
            try:
                os.unlink(_path(name), dir_fd=self._root)
            except FileNotFoundError:
                deleted = 0
            # Also for an absent name, to complete a delete that a crash interrupted after its unlink.
            self._prune(_directory(name))
            absent = not self._exists(name)
        return Deletion(name=name, versions_deleted=deleted, absent=absent)

    def delete_below(self, places: Mapping[str, Collection[str]]) -> dict[str, Sequence[Deletion] | VaultError]:
        """Remove what lies below each prefix, make it durable with one sync a directory above them, and look again.

        An error concerns the prefixes of which it says nothing is known; those of the others stand.
        """
        with translated("what is deleted"):
            self.require_place()
        outcomes: dict[str, Sequence[Deletion] | VaultError] = {}
        above: defaultdict[str, list[str]] = defaultdict(list)
        for place in places:
            above[_directory(place[:-1])].append(place)
        for directory, beside in above.items():
            gone: dict[str, Collection[str]] = {}
            try:
                with translated(f"what is below {beside[0]}"):
                    with self._directory_handle(directory) as handle:
                        for place in beside:
                            try:
                                gone[place] = () if handle is None else self._empty(place, handle)
                            except OSError as error:
                                outcomes[place] = _unknown(place, error)
                    # For places that are not there too: a delete that was cut short is completed here.
                    self._prune(directory)
                    self.require_place()
                    # Not the handle from before: the directory may have been removed, and made again.
                    with self._directory_handle(directory) as handle:
                        for place, known in gone.items():
                            left = () if handle is None else self._left(place, handle)
                            outcomes[place] = _deletions(known, places[place], left)
            except VaultError as error:
                outcomes |= {place: error for place in beside if place not in outcomes}
        return outcomes

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose names start with `prefix`, in name order, one directory in memory at a time."""
        with translated(f"the names under {prefix}"):
            self.require_place()
            yield from self._walk(prefix[: prefix.rfind("/") + 1], prefix)

    def require_place(self) -> None:
        """Raise Unavailable if the opened directory is no longer the store, or no longer at its path."""
        try:
            os.stat(MARKER, dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            raise Unavailable(
                f"the object store at {self.root} lost its marker; nothing is known of its objects"
            ) from None
        try:
            there = self.root.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise Unavailable(
                f"the object store is no longer at {self.root}; no object was stored, changed or deleted", hint=_GONE
            ) from None
        if not os.path.samestat(there, os.fstat(self._root)):
            raise Unavailable(
                f"another directory than the object store that was opened is at {self.root}; no object was "
                "stored, changed or deleted",
                hint=_GONE,
            )

    def probe(self) -> int:
        """Write, sync and remove one block; return the free bytes."""
        with translated("a probe"):
            self.require_place()
            staged = f"{_TMP}/{uuid4().hex}"
            try:
                self._write(staged, bytes(HEADER_BYTES), ())
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(staged, dir_fd=self._root)
            space = os.fstatvfs(self._root)
            return space.f_bavail * space.f_frsize

    def _open_marker(self) -> int:
        try:
            handle = os.open(MARKER, _READ, dir_fd=self._root)
        except FileNotFoundError:
            raise _no_store(self.root) from None
        if os.read(handle, 100) != _LAYOUT:
            os.close(handle)
            raise ConfigError(f"objects.path: {self.root} has another layout than this version of callvault reads")
        return handle

    def _remove_leftovers(self, *, tidies: bool) -> None:
        # Every process with the store open holds the marker's lock shared. Only a process that gets it exclusively
        # knows that no put is under way, so that a crash left what is in tmp.
        if try_lock(self._marker) and tidies:
            for leftover in self._names(_TMP):
                os.unlink(f"{_TMP}/{leftover}", dir_fd=self._root)
        share_lock(self._marker)

    def _write(self, path: str, header: bytes, chunks: Sequence[bytes | memoryview]) -> None:
        write_new(path, [header, *chunks], within=self._root)

    def _place(self, staged: str, name: str) -> None:
        for _ in range(_PLACING_ATTEMPTS):
            self._make_directory(_directory(name))
            try:
                os.rename(staged, _path(name), src_dir_fd=self._root, dst_dir_fd=self._root)
            except FileNotFoundError:
                # A concurrent delete has removed the directory: it must be made, and made durable, again.
                with self._lock:
                    self._durable.discard(_directory(name))
            else:
                return
        raise Unavailable(f"the directory of {name} keeps disappearing; nothing was stored")

    def _make_directory(self, directory: str) -> None:
        if directory in self._durable:
            return
        with self._lock:
            parts = directory.split("/")
            for depth in range(2, len(parts) + 1):
                path = "/".join(parts[:depth])
                if path in self._durable:
                    with contextlib.suppress(FileNotFoundError):
                        os.stat(path, dir_fd=self._root)
                        continue
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o700, dir_fd=self._root)
                # Even if it existed: the process that made it may not have synchronised it yet.
                self._sync_directory("/".join(parts[: depth - 1]))
                self._durable.add(path)
            if len(self._durable) > _KNOWN_DIRECTORIES:
                self._durable.clear()

    @contextlib.contextmanager
    def _directory_handle(self, directory: str) -> Iterator[int | None]:
        """Open a directory; None if it is not there."""
        try:
            handle = os.open(directory, _READ | os.O_DIRECTORY, dir_fd=self._root)
        except FileNotFoundError:
            yield None
            return
        try:
            yield handle
        finally:
            os.close(handle)

    def _empty(self, place: str, above: int) -> list[str]:
        """Unlink the objects below a place and remove its directories; return the names that were there.

        `above` is a handle of the directory that the place is in. Durable once that is synchronised: what has no name
        there cannot be reached. A directory that stays, because it has other files or has just got an object, is
        synchronised itself.
        """
        own = _last(place)
        try:
            handle = os.open(own, _READ | os.O_DIRECTORY, dir_fd=above)
        except FileNotFoundError:
            return []
        gone: list[str] = []
        try:
            with os.scandir(handle) as entries:
                below = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for name, is_directory in below:
                if is_directory:
                    gone += self._empty(f"{place}{name}/", handle)
                elif name.endswith(_SUFFIX):
                    try:
                        os.unlink(name, dir_fd=handle)
                    except FileNotFoundError:
                        continue
                    gone.append(place + name[: -len(_SUFFIX)])
            if not self._remove_directory(f"{_OBJECTS}/{place[:-1]}", own, above):
                os.fsync(handle)
        finally:
            os.close(handle)
        return gone

    def _left(self, place: str, above: int) -> Collection[str]:
        """Return the names that are below a place now; `above` as for `_empty`."""
        try:
            os.stat(_last(place), dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            return ()
        return [info.name for info in self._walk(place, place)]

    def _prune(self, directory: str) -> None:
        """Remove a directory and those above it that are empty, and synchronise the lowest that stays."""
        while True:
            if "/" not in directory or not self._remove_directory(directory, directory, self._root):
                with contextlib.suppress(FileNotFoundError):
                    return self._sync_directory(directory)
            directory = directory.rpartition("/")[0]

    def _remove_directory(self, directory: str, name: str, within: int) -> bool:
        """Tell whether the directory is not there any more: it was empty, or somebody else removed it.

        `name` is what it is called in the open directory `within`.
        """
        with self._lock:
            self._durable.discard(directory)
            try:
                os.rmdir(name, dir_fd=within)
            except FileNotFoundError:
                return True
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
        return True

    def _walk(self, base: str, prefix: str) -> Iterator[ObjectInfo]:
        for name, size in self._children(base):
            if size is None:
                if name.startswith(prefix) or prefix.startswith(name):
                    yield from self._walk(name, prefix)
            elif name.startswith(prefix):
                yield ObjectInfo(name=name, size=size)

    def _children(self, base: str) -> list[tuple[str, int | None]]:
        """Return names below `base` in order: directories end in "/" and have no size, objects have theirs."""
        try:
            handle = os.open(f"{_OBJECTS}/{base}", _READ | os.O_DIRECTORY, dir_fd=self._root)
        except FileNotFoundError:
            return []
        found: list[tuple[str, int | None]] = []
        try:
            with os.scandir(handle) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        found.append((f"{base}{entry.name}/", None))
                    elif entry.name.endswith(_SUFFIX):
                        # Deleted since the directory was read, so no longer an object.
                        with contextlib.suppress(FileNotFoundError):
                            size = entry.stat(follow_symlinks=False).st_size - HEADER_BYTES
                            found.append((base + entry.name.removesuffix(_SUFFIX), size))
        finally:
            os.close(handle)
        # With its final "/" a directory sorts where its contents belong: after "a.b", before "a0".
        return sorted(found)

    @contextlib.contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[int]:
        with translated(name):
            try:
                handle = os.open(_path(name), flags | os.O_NOFOLLOW, dir_fd=self._root)
            except FileNotFoundError:
                self.require_place()
                raise NotFound(f"there is no object {name}") from None
            try:
                yield handle
            finally:
                os.close(handle)

    def _exists(self, name: str) -> bool:
        try:
            os.stat(_path(name), dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _names(self, directory: str) -> list[str]:
        handle = os.open(directory, _READ | os.O_DIRECTORY, dir_fd=self._root)
        try:
            with os.scandir(handle) as entries:
                return [entry.name for entry in entries]
        finally:
            os.close(handle)

    def _sync_directory(self, directory: str) -> None:
        sync_directory(directory, within=self._root)


def _no_store(root: Path) -> ConfigError:
    return ConfigError(
        f"objects.path: there is no object store at {root}",
        hint="is its disk mounted? `callvault init` creates a new, empty store and is the only thing that does",
    )


def _last(place: str) -> str:
    """Return the last part of a place."""
    return place[place.rfind("/", 0, -1) + 1 : -1]


def _unknown(place: str, error: OSError) -> VaultError:
    """Return the error of a place of which it is not known what is left there."""
    return refusal(
        error,
        full=f"no room left on the disk of the object store: what is below {place} was not deleted",
        failed=f"the object store cannot serve what is below {place}",
    )


def _deletions(gone: Collection[str], known: Collection[str], left: Collection[str]) -> Sequence[Deletion]:
    """Say of each name whether it was deleted, and whether it is absent now."""
    gone, left = set(gone), set(left)
    return [
        Deletion(name=name, versions_deleted=int(name in gone), absent=name not in left)
        for name in sorted({*known, *gone, *left})
    ]


def _directory(name: str) -> str:
    return f"{_OBJECTS}/{name}".rpartition("/")[0]


def _path(name: str) -> str:
    return f"{_OBJECTS}/{name}{_SUFFIX}"


def _body_bytes(name: str, handle: int) -> int:
    size = os.fstat(handle).st_size - HEADER_BYTES
    if size < 0:
        raise IntegrityError(f"the file of {name} is shorter than its header")
    return size
