"""`doctor`'s checks of the vault's files: whether they can be used, their owners and modes, and their disks."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vault.config import S3_SCHEME, Config, load_config
from vault.errors import ConfigError
from vault.model import Finding
from vault.places import name_of
from vault.wiring.files import Piece, Place, entries, places_of, trouble

FILES: Final = "files"
"""The subject of findings on owners, modes and paths."""
_OTHERS: Final = 0o077
_EVERYBODY: Final = 0o007
_PUBLIC: Final = frozenset({"tls_cert", "client_ca", "ca_file"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFindings:
    """The findings, and the pieces that cannot be opened: their findings are among these."""

    findings: Sequence[Finding]
    closed: frozenset[Piece]


def file_findings(config: Config, config_file: Path | None = None) -> FileFindings:
    """Check owners, modes and disks of the vault's files on this machine; nothing is opened or changed."""
    findings: list[Finding] = []
    closed: set[Piece] = set()
    places = list(places_of(config))
    troubles = [(place, error) for place in places if (error := trouble(place)) is not None]
    spare = (len(config.replicas) - 1) // 2
    openable = sum(place.piece is Piece.KEYRING for place, _ in troubles) <= spare
    for place, error in troubles:
        missing = isinstance(error.__cause__, FileNotFoundError)
        if missing and (place.piece is Piece.CATALOG or (place.piece is Piece.KEYRING and openable)):
            continue  # whoever opens it says what that means
        findings.append(Finding(level="error", subject=FILES, message=error.message, hint=error.hint))
        if place.piece is not Piece.KEYRING or not openable:
            closed.add(place.piece)
    owner = _expected_owner(config)
    findings += _strangers(places, owner)
    findings += _readable(places, config, config_file)
    if not findings:
        message = f"all belong to {name_of(owner)}, and nobody else may read them"
        findings.append(Finding(level="ok", subject=FILES, message=message))
    return FileFindings(findings=[*findings, *disk_findings(config)], closed=frozenset(closed))


def _expected_owner(config: Config) -> int:
    """Return the uid that should own the files: this user's, or for root, who may check any, the data directory's."""
    me = os.geteuid()
    try:
        return config.resolve(None, "").stat().st_uid if me == 0 else me
    except OSError:
        return me


def _strangers(places: Sequence[Place], owner: int) -> Iterator[Finding]:
    """Warn of files of the vault that belong to somebody else."""
    for place in places:
        found: dict[int, list[Path]] = defaultdict(list)
        for path, status in _known(place):
            if status.st_uid != owner and place.piece not in (Piece.TLS, Piece.SECRETS):
                found[status.st_uid].append(path)
        for uid, paths in sorted(found.items()):
            message = f"{_some(paths)} to {name_of(uid)}, and the vault's files to {name_of(owner)}"
            yield Finding(level="warning", subject=FILES, message=message, hint=f"chown -R {owner} {place.path}")


def _some(paths: Sequence[Path]) -> str:
    if len(paths) == 1:
        return f"{paths[0]} belongs"
    return f"{paths[0]} and {len(paths) - 1} more below it belong"


def _readable(places: Sequence[Place], config: Config, config_file: Path | None) -> Iterator[Finding]:
    """Warn of files that others than their owner may read, and of credentials that everybody may read."""
    for place in places:
        if place.piece is Piece.ROOT_KEYS or place.setting.rpartition(".")[2] in _PUBLIC:
            continue  # the provider itself says which mode its files have to have; the others are for everybody
        mask = _EVERYBODY if place.piece in (Piece.TLS, Piece.SECRETS) else _OTHERS
        if place.piece is Piece.CATALOG and place.path == (config.catalog_path or place.path).parent:
            continue  # the directory may be shared: the file itself is not
        open_ones = [path for path, status in _known(place) if stat.S_IMODE(status.st_mode) & mask]
        if open_ones:
            more = f", and so may {len(open_ones) - 1} more below it" if len(open_ones) > 1 else ""
            message = f"{open_ones[0]} may be read by others than its owner{more}"
            yield Finding(level="warning", subject=FILES, message=message, hint=f"chmod -R go-rwx {place.path}")
    if config_file is not None:
        # The file as it is, without credentials from the environment.
        try:
            carries = _carries_secrets(load_config(config_file, environment={}))
            mode = config_file.stat().st_mode
        except (ConfigError, OSError):
            return
        if carries and stat.S_IMODE(mode) & _EVERYBODY:
            message = f"{config_file} carries a password or key, and everybody on this machine may read it"
            yield Finding(level="warning", subject=FILES, message=message, hint=f"chmod o-rwx {config_file}")


def _carries_secrets(config: Config) -> bool:
    """Tell whether any credential is set."""
    stores = (config.objects.s3, config.keyring.s3, config.backup.s3)
    root = config.keyring.root
    given = (
        config.catalog.url,
        *(store.secret_key for store in stores if store is not None),
        root.pkcs11.pin if root.pkcs11 else None,
        root.transit.token if root.transit else None,
        root.awskms.secret_key if root.awskms else None,
    )
    return any(each is not None for each in given)


def _known(place: Place) -> Iterator[tuple[Path, os.stat_result]]:
    for path in entries(place):
        try:
            yield path, path.stat(follow_symlinks=False)
        except OSError:
            continue


def disk_findings(config: Config) -> Iterator[Finding]:
    """Warn of keyring replicas that would be lost together: on one disk, or in one bucket."""
    together: dict[object, list[str]] = defaultdict(list)
    for name in config.replicas:
        if name.startswith(S3_SCHEME):
            bucket = name.removeprefix(S3_SCHEME).partition("/")[0]
            together[bucket].append(name)
            continue
        try:
            together[Path(name).stat().st_dev].append(name)
        except OSError:
            continue
    for place, names in together.items():
        if len(names) > 1:
            where = "on one disk" if isinstance(place, int) else "in one bucket"
            message = f"{len(names)} keyring replicas are {where}, and are lost with it: {', '.join(names)}"
            hint = "put keyring.replicas on different disks or in buckets of different stores"
            yield Finding(level="warning", subject="keyring", message=message, hint=hint)
