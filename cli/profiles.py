"""Profiles: a vault's id, its address, its authority, and the file with the user's token.

They are read from `callvault/profiles.toml` below `$XDG_CONFIG_HOME`, or below `~/.config` without it. A token is never
in that file. It is in a file of its own that only its owner may read.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from cli.client import DEFAULT_SERVER
from cli.files import whole_file
from vault.errors import ConfigError, Invalid, NotFound

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62})", re.ASCII)
_FILE: Final = "profiles.toml"
_TOKENS: Final = "tokens"
_TOKEN_BYTES: Final = 4096
_PRIVATE: Final = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One user's way to a vault; `vault` is the id that its server states."""

    server: str
    vault: str
    ca_file: str | None = None
    token_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The server and the token of a command's requests. With `vault`, the server must be that vault's."""

    server: str
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    vault: str | None = None


def directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of the profiles."""
    base = environment.get("XDG_CONFIG_HOME")
    # The specification says that relative paths are ignored.
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".config") / "callvault"


def check_name(name: str) -> str:
    """Return a profile's name; Invalid unless it is 1-63 of a-z, 0-9 and hyphens."""
    if not _NAME.fullmatch(name):
        raise Invalid(f"{name[:80]!r} is not a profile's name", hint="use 1-63 of a-z, 0-9 and hyphens, such as north")
    return name


def read_profiles(environment: Mapping[str, str] = os.environ) -> dict[str, Profile]:
    """Return the profiles by name; ConfigError names the file and what is wrong in it."""
    path = directory(environment) / _FILE
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return {name: _profile(path, name, said) for name, said in document.items()}


def _profile(path: Path, name: str, said: Any) -> Profile:
    known = [each.name for each in fields(Profile)]
    if not _NAME.fullmatch(name) or not isinstance(said, dict):
        raise ConfigError(f"{path}: {name[:80]!r} is not a profile", hint="make one with callvault profile add")
    for key, value in said.items():
        if key not in known or not isinstance(value, str):
            raise ConfigError(
                f"{path}: {name}.{key[:80]} is not a setting of a profile", hint=f"known: {', '.join(known)}"
            )
    for key in ("server", "vault"):
        if key not in said:
            raise ConfigError(
                f"{path}: {name}.{key} is missing", hint="make the profile anew with callvault profile add"
            )
    return Profile(**said)


def find(name: str, environment: Mapping[str, str] = os.environ) -> Profile:
    """Return one profile; NotFound."""
    found = read_profiles(environment).get(check_name(name))
    if found is None:
        raise NotFound(f"there is no profile {name}", hint="callvault profile list; callvault profile add makes one")
    return found


def save(profiles: Mapping[str, Profile], environment: Mapping[str, str] = os.environ) -> None:
    """Write all profiles, completely or not at all."""
    lines = ["# Written by callvault profile; see docs/operations.md."]
    for name, profile in profiles.items():
        lines.append(f"\n[{name}]")
        said = {each.name: getattr(profile, each.name) for each in fields(profile)}
        # A JSON string without control characters is a TOML string.
        lines += [f"{key} = {json.dumps(value)}" for key, value in said.items() if value is not None]
    place = directory(environment)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    with whole_file(place / _FILE, force=True) as file:
        file.write("\n".join([*lines, ""]).encode())


def own_token_file(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Return where a profile's token is kept unless the profile names another file."""
    return directory(environment) / _TOKENS / name


def keep_token(name: str, token: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Write a profile's token into a file that only its owner may read; return the path."""
    path = own_token_file(name, environment)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with whole_file(path, force=True) as file:
        file.write(f"{token}\n".encode())
    return path


def read_token(path: Path) -> str:
    """Return the token in a file; ConfigError if it cannot be read, or if others than its owner may read it."""
    try:
        with path.open() as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & _PRIVATE:
                raise ConfigError(
                    f"others may read the token file {path} (mode {mode:04o}); the token was not used",
                    hint=f"chmod 600 {path}; if another person may have read it, issue a new token and revoke this one",
                )
            return file.read(_TOKEN_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"the token file {path} cannot be read: {why}") from error


def connection(
    *,
    server: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    profile: str | None,
    environment: Mapping[str, str] = os.environ,
) -> Connection:
    """Return the connection for requests. A profile overrides all variables, also the token's.

    So a token that a shell still has in CALLVAULT_TOKEN is not sent to the profile's vault.
    """
    found = chosen(profile, environment)
    where = nameless(server=server, ca_file=ca_file, profile=profile, environment=environment)
    its_token = token_file or (Path(found.token_file) if found and found.token_file else None)
    if its_token is not None:
        return replace(where, token=read_token(its_token))
    return where if found else replace(where, token=environment.get("CALLVAULT_TOKEN"))


def chosen(profile: str | None, environment: Mapping[str, str] = os.environ) -> Profile | None:
    """Return the named profile, or the one in CALLVAULT_PROFILE; None without either. NotFound."""
    name = profile or environment.get("CALLVAULT_PROFILE")
    return find(name, environment) if name else None


def nameless(
    *,
    server: str | None,
    ca_file: Path | None,
    profile: str | None,
    default: str = DEFAULT_SERVER,
    environment: Mapping[str, str] = os.environ,
) -> Connection:
    """Return the connection for requests without a token. Options override the profile, which overrides variables."""
    if found := chosen(profile, environment):
        return Connection(
            server=server or found.server,
            ca_file=ca_file or (Path(found.ca_file) if found.ca_file else None),
            vault=found.vault,
        )
    authority = environment.get("CALLVAULT_CA_FILE")
    return Connection(
        server=server or environment.get("CALLVAULT_SERVER") or default,
        ca_file=ca_file or (Path(authority) if authority else None),
    )
