"""What a file system does to an overwritten file, as far as /proc can tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vault.model import Finding

_SUBJECT: Final = "root keys"
_HINT: Final = "keep root versions in a key service or a token, or on a plain partition without snapshots"
_REMEDY: Final = {
    "btrfs": "copies on write: an overwritten root version stays on the disk until its extent is reused",
    "zfs": "copies on write: an overwritten root version stays on the disk, and in snapshots",
    "bcachefs": "copies on write: an overwritten root version stays on the disk until its extent is reused",
    "overlay": "is a container's layer: root versions are lost with the container, and may stay in a lower layer",
    "tmpfs": "is memory: root versions, and with them every recording, are lost at the next restart",
    "nfs": "is a server elsewhere: whether an overwrite reaches the same blocks is that server's choice",
    "nfs4": "is a server elsewhere: whether an overwrite reaches the same blocks is that server's choice",
}
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def filesystem_of(path: Path, *, mounts: Path) -> str | None:
    """Return the type of the file system that holds `path`, from a file in the format of /proc/mounts."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real = path.resolve()
    best: tuple[int, str] | None = None
    for line in lines:
        columns = line.split()
        if len(columns) < 3:  # noqa: PLR2004 - device, mount point, type
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), columns[1]))
        # The last of equal mount points is the one on top.
        if real.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = len(point.parts), columns[2]
    return best[1] if best else None


def filesystem_findings(path: Path, *, mounts: Path) -> Sequence[Finding]:
    """Warn of file systems on which overwriting in place does not overwrite."""
    kind = filesystem_of(path, mounts=mounts)
    if kind in _REMEDY:
        return (
            Finding(
                level="warning", subject=_SUBJECT, message=f"{path} is on {kind}, which {_REMEDY[kind]}", hint=_HINT
            ),
        )
    return (
        Finding(
            level="warning",
            subject=_SUBJECT,
            message=f"{path} is on {kind or 'an unknown file system'}: whether the device below remaps, discards or "
            "snapshots blocks cannot be known from here, so destruction is best effort",
            hint=_HINT,
        ),
    )
