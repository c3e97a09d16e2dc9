"""What a file system and its device do with overwritten data, as far as the kernel tells."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vault.keystore.root.common import finding
from vault.model import Finding

_HINT: Final = "keep root versions in a key service or a token, or on a plain partition without snapshots"
_DANGER: Final = {
    "btrfs": "copies on write: an overwritten root version stays on the disk until its extent is reused",
    "zfs": "copies on write: an overwritten root version stays on the disk, and in snapshots",
    "bcachefs": "copies on write: an overwritten root version stays on the disk until its extent is reused",
    "overlay": "is a container's layer: root versions are lost with the container, and may stay in a lower layer",
    "tmpfs": "is memory: root versions, and with them every recording, are lost at the next restart",
    "nfs": "is a server elsewhere: whether an overwrite reaches the same blocks is that server's choice",
    "nfs4": "is a server elsewhere: whether an overwrite reaches the same blocks is that server's choice",
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
        return finding("warning", f"{text} cannot be known from here, so destruction is best effort", _HINT)
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
