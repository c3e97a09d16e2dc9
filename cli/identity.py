"""Writes the [identity] of a vault into its config.toml; `init` asks for it if it finds a placeholder."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

from vault.disk import whole_file
from vault.errors import ConfigError

_HEADER: Final = re.compile(r"^\[identity\][ \t]*(?:#.*)?$", re.MULTILINE)
_NEXT: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)


def with_identity(text: str, given: Mapping[str, str]) -> str:
    """Return the text of a config.toml with these settings in [identity] and everything else unchanged; ConfigError."""
    before = tomllib.loads(text)
    header = _HEADER.search(text)
    if header is None:
        start = end = len(text)
        head, body = f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}\n[identity]\n", ""
    else:
        start = header.end() + 1
        following = _NEXT.search(text, start)
        end = len(text) if following is None else following.start()
        head, body = text[: header.end()] + "\n", text[start:end]
    for name, value in given.items():
        # Every JSON string without control characters is a basic string of TOML.
        line = f"{name} = {json.dumps(value, ensure_ascii=False)}"
        found = re.search(rf"^{name}[ \t]*=.*$", body, re.MULTILINE)
        body = f"{line}\n{body}" if found is None else body[: found.start()] + line + body[found.end() :]
    after = head + body + text[end:]
    wanted = {**before, "identity": {**before.get("identity", {}), **given}}
    try:
        whole = tomllib.loads(after) == wanted
    except tomllib.TOMLDecodeError:
        whole = False
    if not whole:
        raise ConfigError("[identity] of this file cannot be written by a program", hint=_by_hand(given))
    return after


def write_identity(path: Path, given: Mapping[str, str]) -> None:
    """Replace these settings in [identity] of a file, completely or not at all, keeping owner and mode; ConfigError."""
    path = path.resolve()
    try:
        text, status = path.read_text(encoding="utf-8"), path.stat()
        after = with_identity(text, given)
        with whole_file(path, mark=f"{uuid4().hex}.partial") as file:
            os.fchmod(file.fileno(), status.st_mode & 0o777)
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.write(after.encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint=_by_hand(given)) from error


def _by_hand(given: Mapping[str, str]) -> str:
    lines = "; ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
    return f"write into [identity] by hand: {lines}"
