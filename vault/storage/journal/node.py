"""The id of a journal's node: made once, kept beside its files, and written into every row it has bytes of."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Final

from vault.disk import write_whole
from vault.errors import ConfigError
from vault.ids import NodeId, new_id
from vault.places import unusable
from vault.ports.time import Entropy

FILE_NAME: Final = "node.id"
_PATTERN: Final = re.compile(r"node_[0-9a-f]{32}")


def node_of(directory: Path, *, at: datetime, entropy: Entropy) -> NodeId:
    """Return the id in `directory`, making it durable first if there is none; the caller holds the journal's lock.

    ConfigError if it cannot be read or written, or is damaged. Nothing is recorded before the id is durable: rows under
    a lost id would wait for that node for ever.
    """
    path = directory / FILE_NAME
    try:
        if not path.exists():
            write_whole(path, f"{new_id('node', at=at, entropy=entropy)}\n".encode())
    except OSError as error:
        raise unusable(path, error, setting="journal.path") from error
    return _read(directory)


def existing_node(directory: Path) -> NodeId:
    """Return the id of the journal in `directory`; ConfigError if it has none."""
    try:
        (directory / FILE_NAME).stat()
    except FileNotFoundError as error:
        raise ConfigError(f"{directory} is not a node's journal: {FILE_NAME} is missing") from error
    except OSError as error:
        raise unusable(directory / FILE_NAME, error) from error
    return _read(directory)


def _read(directory: Path) -> NodeId:
    try:
        name = (directory / FILE_NAME).read_text(encoding="ascii").strip()
    except OSError as error:
        raise unusable(directory / FILE_NAME, error, setting="journal.path") from error
    except UnicodeDecodeError:
        name = ""
    if not _PATTERN.fullmatch(name):
        raise ConfigError(
            f"journal.path: {FILE_NAME} in it is damaged", hint="put back the id that `callvault journal status` shows"
        )
    return NodeId(name)
