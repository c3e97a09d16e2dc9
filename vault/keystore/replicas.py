"""The keyring's replica directories: complete copies of each other, in a fixed order.

A write lands on every replica before it is acknowledged, blobs first and heads last. So each head found anywhere names
blobs that every replica was given, and any one replica with an acknowledged head is a whole keyring.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from vault.errors import ConfigError, FormatError, Tampered, Unavailable
from vault.format.keyring import decode_marker, encode_marker
from vault.keystore.files import Files

MARKER: Final = "REPLICA"
HEAD: Final = "head"
LOCK: Final = "LOCK"
INDEX: Final = "index"
PAGES: Final = "pages"

Blobs = Mapping[str, bytes]
"""Relative name (`index/…` or `pages/…`) to content."""


class Replicas:
    """Blocking operations over all replicas; call in a worker thread."""

    def __init__(self, paths: Sequence[Path], *, files: Files) -> None:
        if not paths:
            raise ConfigError("keyring.replicas is empty", hint="name at least two directories on different disks")
        if len(set(paths)) != len(paths):
            raise ConfigError("keyring.replicas names one directory twice")
        self.paths = tuple(paths)
        self._files = files

    def lock(self) -> Callable[[], None]:
        """Lock every replica for this process, in order, and return what unlocks them; Unavailable."""
        with contextlib.ExitStack() as stack:
            for path in self.paths:
                try:
                    stack.callback(self._files.lock(path / LOCK))
                except FileNotFoundError as error:
                    raise _unmarked(path) from error
            return stack.pop_all().close

    def initialise(self) -> None:
        """Make the directories; ConfigError if any holds anything but a lock."""
        for path in self.paths:
            self._files.make_directory(path)
            for directory in (INDEX, PAGES):
                self._files.make_directory(path / directory)
            found = {*self._files.names(path)} - {LOCK, INDEX, PAGES}
            if found or self._files.names(path / INDEX) or self._files.names(path / PAGES):
                raise ConfigError(
                    f"the keyring replica {path} is not empty; nothing was changed",
                    hint="keyring.replicas names new directories for a new vault",
                )

    def mark(self, keyring: bytes) -> None:
        """Declare each directory a replica. Last, so that an unfinished one is never opened."""
        for path in self.paths:
            self._files.replace(path / MARKER, encode_marker(keyring))

    def keyring_id(self) -> bytes:
        """Return the keyring id that all markers name; ConfigError.

        An unmarked directory is an unmounted disk or a wrong path. Filling it would hide that, reading it as empty
        would look like mass deletion.
        """
        found = {path: self.marker(path) for path in self.paths}
        for path, keyring in found.items():
            if keyring is None:
                raise _unmarked(path)
            if keyring != found[self.paths[0]]:
                raise ConfigError(
                    f"the replicas {self.paths[0]} and {path} belong to different keyrings; nothing was changed",
                    hint="move the wrong directory away, then run `callvault keys repair` with its path",
                )
        keyring = found[self.paths[0]]
        assert keyring is not None
        return keyring

    def marker(self, path: Path) -> bytes | None:
        """Return the keyring id in one replica's marker, None if it has none; ConfigError if it is damaged."""
        try:
            return decode_marker(self._files.read(path / MARKER))
        except FileNotFoundError:
            return None
        except FormatError as error:
            raise ConfigError(
                f"the marker of the keyring replica {path} is damaged; nothing was changed",
                hint="move the directory away, then run `callvault keys repair` with its path",
            ) from error

    def heads(self) -> Sequence[bytes | None]:
        """Return each replica's head, None where it is missing; Unavailable if one cannot be read."""
        return [self._read(path / HEAD) for path in self.paths]

    def agreeing(self, head: bytes) -> int:
        """Return how many replicas can be read and have this head."""
        count = 0
        for path in self.paths:
            with contextlib.suppress(Unavailable):
                count += self._read(path / HEAD) == head
        return count

    def blob(self, name: str, sha256: bytes, *, replica: int | None) -> bytes:
        """Return the first copy that has the hash, or the copy of one replica; Tampered if there is none."""
        for path in self.paths if replica is None else self.paths[replica : replica + 1]:
            data = self._read(path / name)
            if data is not None and _matches(data, sha256):
                return data
        raise Tampered("a part of the keyring is missing or changed on every replica that was read")

    def write(self, blobs: Blobs) -> None:
        """Make new blobs durable on every replica."""
        for path in self.paths:
            for name, data in blobs.items():
                self._files.write_durable(path / name, data)

    def swap(self, expected: bytes, head: bytes) -> None:
        """Exchange the head on each replica in turn; Unavailable at the first that is not the expected one.

        The expected head carries this writer's fence in its index: a head that differs was written by another.
        """
        for path in self.paths:
            if self._read(path / HEAD) != expected:
                raise Unavailable(f"the head of the keyring replica {path} is not the one this writer left there")
            self._files.replace(path / HEAD, head)

    def install(self, head: bytes) -> None:
        """Write the first head of a new keyring."""
        for path in self.paths:
            self._files.replace(path / HEAD, head)

    def mend(self, head: bytes, blobs: Mapping[str, bytes]) -> Sequence[Path]:
        """Bring every replica to `head`, whose blobs have these hashes; returns those that differed.

        Blobs first: a head that lands before what it names would open to nothing after the next crash.
        """
        mended: list[Path] = []
        for path in self.paths:
            for directory in (INDEX, PAGES):
                self._files.make_directory(path / directory)
            damaged = self._read(path / HEAD) != head
            for name, sha256 in blobs.items():
                data = self._read(path / name)
                if data is None or not _matches(data, sha256):
                    self._files.replace(path / name, self.blob(name, sha256, replica=None))
                    damaged = True
            if damaged:
                self._files.replace(path / HEAD, head)
                mended.append(path)
        return mended

    def collect(self, names: Iterable[str]) -> None:
        """Remove superseded blobs everywhere, as far as that is possible now: recovery removes the rest."""
        for path in self.paths:
            for name in names:
                with contextlib.suppress(Unavailable):
                    self._files.unlink(path / name)

    def strays(self, keep: Iterable[str]) -> set[str]:
        """Return the blobs on any replica that are not to be kept."""
        kept = set(keep)
        found: set[str] = set()
        for path in self.paths:
            for directory in (INDEX, PAGES):
                with contextlib.suppress(FileNotFoundError):
                    found |= {f"{directory}/{name}" for name in self._files.names(path / directory)}
        return found - kept

    def _read(self, path: Path) -> bytes | None:
        try:
            return self._files.read(path)
        except FileNotFoundError:
            return None


def _matches(data: bytes, sha256: bytes) -> bool:
    return hmac.compare_digest(hashlib.sha256(data).digest(), sha256)


def _unmarked(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is not a keyring replica: it is not mounted, or has no {MARKER} file; nothing was changed",
        hint=f"mount it; if it is lost, run `callvault keys repair {path}` to refill it from the other replicas",
    )
