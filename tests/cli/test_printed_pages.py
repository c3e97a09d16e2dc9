"""The shell blocks and transcripts of the pages, run by bash as they are printed, each page with a vault of its own.

Beside it tests/integration/test_printed_commands.py runs docs/api.md, and test_recorder_setups.py runs recorders.
Only places that a test has no business in are replaced, and ids.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cli.init import default_settings
from tests.helpers.documents import PAGES, ROOT, SHELL, Block, blocks, commands, loosely, typed
from tests.helpers.soak import SOAK
from vault.config import load_config
from vault.media.wav import wav_header
from vault.wiring.trial import make_trial

BIN = Path(sys.executable).parent
PLACES = ("/etc/callvault/", "/mnt/backup/callvault", "/disk2/callvault/keyring")
ELSEWHERE = {"docs/api.md", "docs/recorders.md"}
RUN = ["docs/operations.md", "docs/archives.md", "docs/backup.md", "docs/holds.md"]
# What begins so is not run, and why.
NOT_RUN = {
    "callvault quickstart": "is run in tests/cli/test_quickstart.py",
    "export CALLVAULT_SERVER=http://127.0.0.1:8080": "needs the trial vault of quickstart",
    "callvault erasures request": "needs that vault and its tokens",
    "callvault erasures approve": "asks at a terminal",
    "callvault certificates list --token-file callvault-trial": "needs that vault",
    "make ": "is what runs this",
    "python3 -m venv": "downloads what is installed",
    "/opt/callvault/bin/pip": "downloads what is installed",
    "pip install": "downloads what is installed",
    "docker ": "needs a container engine",
    "rtpengine-recording": "needs the daemon",
    "export CALLVAULT_CATALOG_URL": "needs a database",
    "callvault init --config config.toml": "needs that database",
    "callvault holds approve": "asks at a terminal: tests/cli/test_json.py",
    "callvault profile add lab": "asks at a terminal: tests/cli/test_profiles.py",
    "callvault keys repair": "repairs what is lost: tests/cli/test_serve.py",
    "callvault backup restore": "needs a loss: tests/integration/test_restore.py",
    "callvault prove erasure": "needs evidence: tests/integration/test_prove.py",
}


@dataclass(slots=True, kw_only=True)
class Shell:
    """A folder, the vault in it, and what its user has been told."""

    folder: Path
    port: int
    token: str = ""
    recorder: str = ""
    compliance: str = ""
    server: subprocess.Popen[bytes] | None = None
    known: dict[str, str] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def told(self, command: str) -> str:
        for place in PLACES:
            command = command.replace(place, f"{self.folder}{place}")
        command = command.replace("https://vault.example.org", self.url)
        return re.sub(r"\b(rec|tok|hold)_018f[0-9a-f]{28}\b", lambda match: self.known.get(match[1], match[0]), command)

    def run(self, command: str, *, also: tuple[int, ...] = ()) -> str:
        """Return all that a command printed; it ends with 0, or as is said to be expected."""
        if command.startswith("callvault serve"):
            self.serve(command)
            return ""
        if exported := re.fullmatch(r"export (\w+)=(\S+)\n", command):
            self.exported[exported[1]] = exported[2]
            return ""
        by = {"import": self.recorder, "holds": self.compliance, "export": self.compliance}
        token = by.get(re.findall(r"callvault (\w+)", command)[0], self.token)
        environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "CALLVAULT_SERVER": self.url,
            **({"CALLVAULT_TOKEN": token} if token else {}),
            **self.exported,
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.told(command)],
            cwd=self.folder, env=environment, text=True, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in {0, *also}, f"{command}\n{done.stdout}\n{done.stderr}"
        if "callvault init >" in command:
            self.token = (self.folder / "operator.token").read_text().strip()
            (self.folder / "asha.token").write_text(self.token)
        if "--role recorder" in command:
            self.recorder = done.stdout.strip()
            self.record()
        for identifier in re.findall(r"\b(?:rec|tok|hold)_[0-9a-f]{32}\b", done.stdout + done.stderr):
            self.known[identifier.partition("_")[0]] = identifier
        return done.stdout + done.stderr

    def record(self) -> None:
        """Have one call, of which a page speaks as if there were some."""
        headers = {"Authorization": f"Bearer {self.recorder}", "Content-Type": "audio/basic"}
        address = f"{self.url}/v1/ingest/northfield-college/a-call"
        asked = urllib.request.Request(address, data=bytes(8_000), headers=headers, method="PUT")
        with urllib.request.urlopen(asked, timeout=10) as answer:
            self.known["rec"] = json.load(answer)["recording_id"]

    def serve(self, command: str) -> None:
        self.server = subprocess.Popen(
            ["bash", "-c", f"exec {BIN}/{command}"], cwd=self.folder, stderr=subprocess.DEVNULL
        )
        for _ in range(2000):
            assert self.server.poll() is None
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=1):
                    return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("the server did not start")


@contextmanager
def shell(folder: Path, *, trial: bool) -> Iterator[Shell]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        user = Shell(folder=folder, port=free.getsockname()[1])
    for place in PLACES:
        at = Path(f"{folder}{place}")
        (at if place.endswith("/") else at.parent).mkdir(parents=True, exist_ok=True)
    config = folder / "config.toml"
    config.write_text(default_settings(port=str(user.port)))
    try:
        if trial:
            tokens = asyncio.run(make_trial(load_config(config)))
            user.token, user.recorder, user.compliance = (tokens[who] for who in ("operator", "recorder", "compliance"))
            user.serve("callvault serve")
        yield user
    finally:
        if user.server is not None:
            user.server.kill()
            user.server.wait()


def is_run(command: str) -> bool:
    return not command.startswith(tuple(NOT_RUN))


def answers(block: Block) -> Iterator[tuple[str, str]]:
    """Yield the commands of a transcript, each with what it is said to print."""
    at = [block.text.index(f"$ {command}") for command in typed(block.text)]
    for command, start, end in zip(typed(block.text), at, [*at[1:], None], strict=True):
        yield command, block.text[start + 2 + len(command) : end]


def read(page: Path, user: Shell) -> int:
    """Run a page from its beginning to its end; return how many commands that were."""
    count = 0
    for block in blocks(page):
        if block.language in SHELL:
            for command in filter(is_run, commands(block.text)):
                user.run(command)
                count += 1
        elif block.language == "console":
            for command, expected in answers(block):
                if not is_run(command):
                    continue
                said = loosely(user.run(command, also=(3,) if "\nerror: " in expected else ()))
                for line in expected.splitlines():
                    assert loosely(line) in said, f"{block.name}: {line}\n{said}"
                count += 1
    return count


def archive(folder: Path) -> None:
    """Write what docs/archives.md shows: a table of three calls, and the files of two."""
    samples = bytes(8_000)
    call = wav_header(rate=8000, channels=1, data_bytes=len(samples)) + samples
    (folder / "2024").mkdir()
    for name in ("0117", "0118"):
        (folder / "2024" / f"{name}.wav").write_bytes(call)
    table = next(each for each in blocks(ROOT / "docs" / "archives.md") if each.text.startswith("file;call_id"))
    (folder / "calls.csv").write_text(table.text.replace("SHA\n", f"{hashlib.sha256(call).hexdigest()}\n"))


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="every command is a process: run in make soak")
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_as_it_is_printed(page: str, tmp_path: Path) -> None:
    with shell(tmp_path, trial=page != "docs/operations.md") as user:
        if page == "docs/archives.md":
            if shutil.which("jq") is None:
                pytest.skip("jq is not installed")
            archive(tmp_path)
        if page == "docs/holds.md":
            user.record()
        assert read(ROOT / page, user) > 2


def test_what_is_not_run_is_named_with_the_reason_and_is_still_there() -> None:
    there = [
        command
        for page in PAGES
        if str(page.relative_to(ROOT)) not in ELSEWHERE
        for block in blocks(page)
        for command in (commands(block.text) if block.language in SHELL else typed(block.text))
        if block.language in {*SHELL, "console"}
    ]
    assert [begin for begin in NOT_RUN if not any(command.startswith(begin) for command in there)] == []
    run = {
        str(page.relative_to(ROOT))
        for page in PAGES
        for block in blocks(page)
        if block.language in SHELL and any(map(is_run, commands(block.text)))
    }
    assert run - ELSEWHERE <= set(RUN)
