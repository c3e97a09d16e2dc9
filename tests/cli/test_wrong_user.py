"""Files that the process may not use, or that are not there: every command says which, whose, and who asked."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.authorities import write_certificate
from tests.helpers.server import zygote
from vault.config import load_config
from vault.wiring import init_vault, open_vault

ROOT = os.geteuid() == 0
USER = 65_534 if ROOT else os.geteuid()
CONFIG = """
data = "data"
[server]
host = "localhost"
port = 0
tls_cert = "cert.pem"
tls_key = "key.pem"
[journal]
file_bytes = "4MiB"
disk_reserve = "1MiB"
[log]
level = "ERROR"
"""
OPENING = [
    ["serve", "--port-file", "port"],
    ["serve", "--workers", "2"],
    ["backup", "create", "backups"],
    ["tokens", "issue", "--role", "operator", "--name", "x", "--config", "config.toml"],
    ["catalog", "upgrade"],
    ["backup", "reconcile"],
    ["journal", "status"],
    ["keys", "verify"],
    ["keys", "repair", "data/keyring-a"],
    ["prove", "restore", "backups"],
    ["backup", "restore", "backups"],
    ["backup", "list", "backups"],
    ["doctor"],
]


@pytest.fixture(scope="module")
def vault() -> Iterator[Path]:
    # Not below pytest's own directory, which nobody else may enter.
    directory = Path(tempfile.mkdtemp(prefix="callvault-user-"))
    try:
        directory.chmod(0o755)
        (directory / "config.toml").write_text(CONFIG)
        write_certificate(directory)
        asyncio.run(_made(directory))
        for path in (directory, *directory.rglob("*")):
            os.chown(path, USER, -1)
        yield directory
    finally:
        shutil.rmtree(directory)


async def _made(directory: Path) -> None:
    config = load_config(directory / "config.toml")
    await init_vault(config)
    async with open_vault(config, background=False):
        pass


@pytest.fixture(scope="module")
def run(vault: Path) -> Iterator[Callable[..., tuple[int, str, str]]]:
    with zygote() as process:

        def run(*arguments: str) -> tuple[int, str, str]:
            return process.run(list(arguments), directory=vault, uid=USER if ROOT else None)

        yield run


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Make a file or directory one that the user may not use: another's, or where there is no other, nobody's."""
    mode = path.stat().st_mode
    path.chmod(0o700 if path.is_dir() else 0o600)
    if ROOT:
        os.chown(path, 0, 0)
    else:
        path.chmod(0)
    try:
        yield
    finally:
        os.chown(path, USER, -1)
        path.chmod(mode)


@contextmanager
def moved(path: Path) -> Iterator[None]:
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


def told(answer: tuple[int, str, str], path: Path, *, reason: str) -> None:
    """Check that one line has the path, its owner and the user, and that nothing but the hint follows."""
    code, out, err = answer
    assert "Traceback" not in out + err, err
    assert code == 7, (code, out, err)
    lines = [line for line in (out + err).splitlines() if str(path) in line and reason in line]
    assert lines, (out, err)
    assert f"uid {USER})" in lines[0] or f"uid {USER}" in lines[0]
    assert "belongs to" in lines[0]
    if ROOT and reason == "permission denied":
        assert "root (uid 0)" in lines[0]


@pytest.mark.parametrize("arguments", OPENING, ids=lambda words: " ".join(words[:2]))
def test_a_vault_of_another_user_is_one_line_with_path_owner_and_user(
    vault: Path, run: Callable[..., Any], arguments: list[str]
) -> None:
    (vault / "backups").mkdir(exist_ok=True)
    os.chown(vault / "backups", USER, -1)
    with locked(vault / "data"):
        told(run(*arguments), vault / "data", reason="permission denied")


@pytest.mark.parametrize(
    "place",
    [
        "config.toml",
        "key.pem",
        "data/catalog.db",
        "data/journal",
        "data/journal/journal.lock",
        "data/journal/node.id",
        "data/objects",
        "data/objects/tmp",
        "data/root-keys",
        "data/root-keys/*-*",
        "data/issuer.pem",
        "data/locks/keyring.lock",
    ],
)
def test_each_file_that_a_server_needs_is_named_when_it_is_anothers(
    vault: Path, run: Callable[..., Any], place: str
) -> None:
    path = next(vault.glob(place))
    with locked(path):
        told(run("serve"), path, reason="permission denied")
        told(run("doctor"), path, reason="permission denied")


@pytest.mark.parametrize("place", ["journal", "objects", "root-keys", "issuer.pem"])
def test_each_place_that_is_not_there_is_named_with_what_is_above_it(
    vault: Path, run: Callable[..., Any], place: str
) -> None:
    with moved(vault / "data" / place):
        told(run("serve"), vault / "data" / place, reason="no such file or directory")


def test_one_replica_of_another_user_is_not_needed_and_a_majority_is(vault: Path, run: Callable[..., Any]) -> None:
    first, second = vault / "data" / "keyring-a", vault / "data" / "keyring-b"
    with locked(first):
        code, out, err = run("keys", "verify")
        assert code == 5
        assert str(first) in out + err
        with locked(second):
            told(run("serve"), first, reason="permission denied")


def test_init_where_nothing_may_be_made_makes_nothing(vault: Path, run: Callable[..., Any]) -> None:
    below = vault / "below"
    below.mkdir()
    (below / "config.toml").write_text(CONFIG)
    with locked(below):
        below.chmod(0o755)
        told(run("init", "--config", "below/config.toml"), below, reason="permission denied" if ROOT else "denied")
    assert [path.name for path in below.iterdir()] == ["config.toml"]
