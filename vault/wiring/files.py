"""The vault's files on this machine, and whether this process may use them: checked before anything is opened."""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vault import places
from vault.config import Config
from vault.config.root import RootSection, SingleRootSection
from vault.errors import ConfigError

_DEEPEST: Final = 3
_MOST: Final = 20_000
"""At most so many entries of one directory tree are checked; a vault has far fewer outside its objects."""
_BESIDE_CATALOG: Final = ("-wal", "-shm", ".users")

logger = logging.getLogger(__name__)


class Piece(enum.Enum):
    """A part of the vault that a command may need."""

    CATALOG = "catalog"
    KEYRING = "keyring"
    ROOT_KEYS = "root keys"
    OBJECTS = "objects"
    JOURNAL = "journal"
    ISSUER = "issuer key"
    SECRETS = "credentials"
    TLS = "TLS"


EVERYTHING: Final = tuple(Piece)
TO_READ_KEYS: Final = (Piece.KEYRING, Piece.ROOT_KEYS, Piece.SECRETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One path with the setting that names it. `tree`: its contents are used too, and nobody else should read them."""

    piece: Piece
    setting: str
    path: Path
    need: int = places.WRITE
    tree: bool = False


def places_of(config: Config) -> Iterator[Place]:
    """Yield every place of the vault that is on this machine."""
    if (catalog := config.catalog_path) is not None:
        # SQLite puts its log beside the file.
        yield Place(piece=Piece.CATALOG, setting="catalog.path", path=catalog.parent)
        yield Place(piece=Piece.CATALOG, setting="catalog.path", path=catalog)
        for suffix in _BESIDE_CATALOG:
            if _seen(beside := Path(f"{catalog}{suffix}")):
                yield Place(piece=Piece.CATALOG, setting="catalog.path", path=beside)
        if _seen(config.locks_path):
            yield Place(piece=Piece.CATALOG, setting="data", path=config.locks_path, tree=True)
    for path in config.replica_paths:
        yield Place(piece=Piece.KEYRING, setting="keyring.replicas", path=path, tree=True)
    yield from _root_places(config)
    if config.objects.kind == "filesystem":
        yield Place(piece=Piece.OBJECTS, setting="objects.path", path=config.objects_path)
        for name in ("objects", "tmp"):
            if _seen(inside := config.objects_path / name):
                yield Place(piece=Piece.OBJECTS, setting="objects.path", path=inside)
    yield Place(piece=Piece.JOURNAL, setting="journal.path", path=config.journal_path, tree=True)
    yield Place(piece=Piece.ISSUER, setting="issuer key", path=config.issuer_path, need=places.READ)
    for setting, path in tls_files(config):
        yield Place(piece=Piece.TLS, setting=setting, path=path, need=places.READ)


def _seen(path: Path) -> bool:
    """Tell whether the path exists; if that cannot be seen, the check of a directory above it tells why."""
    try:
        return places.is_there(path)
    except OSError:
        return False


def _root_places(config: Config) -> Iterator[Place]:
    roots = {"keyring.root": config.keyring.root, "keyring.previous_root": config.keyring.previous_root}
    for name, root in roots.items():
        if root is None:
            continue
        halves: Sequence[SingleRootSection | RootSection] = (
            (root,) if root.composite is None else (root.composite.first, root.composite.second)
        )
        for half in halves:
            if half.kind == "file":
                path = config.file_root_path(half)
                yield Place(piece=Piece.ROOT_KEYS, setting="keyring.root_keys", path=path, tree=True)
            secrets = {
                "pin_file": half.pkcs11.pin_file if half.pkcs11 else None,
                "token_file": half.transit.token_file if half.transit else None,
                "ca_file": half.transit.ca_file if half.transit else None,
            }
            for key, file in secrets.items():
                if file is not None:
                    setting = f"{name}.{half.kind}.{key}"
                    yield Place(piece=Piece.SECRETS, setting=setting, path=config.resolve(file, ""), need=places.READ)


def tls_files(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield the settings that name TLS files, with the files."""
    sections = {
        "server": config.server,
        "streams.audiosocket": config.streams.audiosocket,
        "streams.rtpengine": config.streams.rtpengine,
    }
    for name, section in sections.items():
        for key in ("tls_cert", "tls_key", "client_ca"):
            file = getattr(section, key, None)
            if file is not None:
                yield f"{name}.{key}", config.resolve(file, "")


def entries(place: Place) -> Iterator[Path]:
    """Yield the place, and the contents of a tree; a directory that cannot be listed yields only itself."""
    yield place.path
    if place.tree:
        left = _MOST
        for path in _below(place.path, _DEEPEST):
            yield path
            left -= 1
            if not left:
                return


def _below(directory: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(directory) as found:
            names = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in found)
    except OSError:
        return
    for name, is_directory in names:
        yield directory / name
        if is_directory and depth > 1:
            yield from _below(directory / name, depth - 1)


def trouble(place: Place) -> ConfigError | None:
    """Return why this process cannot use a place or its contents; None if it can."""
    for path in entries(place):
        try:
            places.check(path, place.need, setting=place.setting)
        except ConfigError as error:
            if path != place.path and isinstance(error.__cause__, FileNotFoundError):
                continue  # a server beside this one has just done with it
            return error
    return None


def refuse_unusable(config: Config, pieces: Sequence[Piece] = EVERYTHING, *, warn: bool = True) -> None:
    """Raise ConfigError for the first place among `pieces` that this process cannot use as it needs to.

    A missing catalog is no error here: opening it reports that, and other missing places then are none either. Of the
    keyring's replicas a majority is enough; with `warn` the log names the others.
    """
    failed: list[ConfigError] = []
    for place in places_of(config):
        if place.piece not in pieces:
            continue
        error = trouble(place)
        if error is None:
            continue
        if place.piece is Piece.CATALOG and isinstance(error.__cause__, FileNotFoundError):
            return
        if place.piece is not Piece.KEYRING:
            raise error
        failed.append(error)
        if len(failed) > (len(config.replicas) - 1) // 2:
            raise failed[0]
    for error in failed if warn else ():
        logger.warning(error.message, extra={"fields": {"hint": error.hint}})


def refuse_unmakeable(config: Config) -> None:
    """Raise ConfigError for the first place that `init` could not make."""
    for place in places_of(config):
        if place.piece not in (Piece.TLS, Piece.SECRETS):
            places.check_makeable(place.path, setting=place.setting)
