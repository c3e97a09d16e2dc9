"""`callvault quickstart`: what it prints is run as it was printed, by a shell, from an empty folder on."""

from __future__ import annotations

import asyncio
import fcntl
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli import quickstart
from cli.main import main

MINUTE = 60.0
BIN = Path(sys.executable).parent
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("CALLVAULT_")}
ENVIRONMENT["PATH"] = f"{BIN}:{ENVIRONMENT['PATH']}"


def run(line: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=ENVIRONMENT, text=True, capture_output=True, timeout=MINUTE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def served(line: str, folder: Path, url: str) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=folder, env=ENVIRONMENT, stderr=log)
    try:
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                if ask(url, "GET", "/readyz")[0] == 200:
                    break
            except OSError:
                time.sleep(0.02)
        # Nobody who lists processes sees a token.
        assert b"cv_" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        yield
    finally:
        process.kill()
        process.wait()


def ask(url: str, method: str, path: str, token: str = "", body: object = None) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    kind = {} if body is None else {"Content-Type": "application/json"}
    authorised = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, None if body is None else json.dumps(body), {**authorised, **kind})
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    return tmp_path


def test_from_an_empty_folder_to_a_recording_that_plays_in_under_a_minute(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    left = folder / ".callvault-trial.partial" / "data" / "keyring-a"
    left.mkdir(parents=True)  # what one that was killed leaves
    at_first = time.monotonic()
    assert main(["quickstart"]) == 0
    said, noted = capsys.readouterr()
    assert [path.name for path in folder.iterdir()] == ["callvault-trial"]
    assert "it never becomes another" in noted
    assert "cv_" not in said + noted
    serve, record, play = (line for line in said.splitlines() if not line.startswith("#"))
    url = next(word for word in play.split() if word.startswith("http://"))
    trial = folder / "callvault-trial"
    with served(serve, folder, url):
        recording = json.loads(run(record, folder))["recording_id"]
        run(play, folder)
        assert time.monotonic() - at_first < MINUTE
        assert (folder / "first-call.wav").read_bytes() == (trial / "sample-call.wav").read_bytes()

        # The two whom a decision takes are there, and no token stands above both.
        compliance, dpo = ((trial / "tokens" / f"{name}.token").read_text().strip() for name in ("compliance", "dpo"))
        wanted = {"basis": "art17", "case_reference": "DSR-1", "recordings": [recording]}
        status, erasure = ask(url, "POST", "/v1/erasures", compliance, wanted)
        assert status == 202, erasure
        status, erasure = ask(url, "POST", f"/v1/erasures/{erasure['id']}/approve", dpo, {"shown": erasure["shown"]})
        assert status == 200, erasure
    assert {path.stat().st_mode & 0o077 for path in [trial, *(trial / "tokens").iterdir(), trial / "tokens"]} == {0}

    before = sorted(folder.rglob("*"))
    assert main(["quickstart"]) == 0
    again = capsys.readouterr()
    assert (again.out, "nothing was changed" in again.err) == (said, True)
    assert main(["quickstart", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["made"], document["trial"]) == (False, True)
    assert list(document["commands"].values()) == [serve, record, play]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_that_is_interrupted_leaves_nothing_half_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    handlers = signal.getsignal(number)
    if number == signal.SIGINT and handlers == signal.SIG_IGN:  # as in a background job of a shell
        handlers = signal.default_int_handler
        signal.signal(number, handlers)

    async def half(trial: quickstart._Trial) -> None:
        trial.tokens.mkdir()
        trial.token("operator").write_text("a token")
        os.kill(os.getpid(), number)
        await asyncio.sleep(MINUTE)

    monkeypatch.setattr(quickstart, "_furnish", half)
    assert main(["quickstart"]) == 130
    assert list(folder.iterdir()) == []
    assert signal.getsignal(number) == handlers


def test_quickstart_writes_nothing_into_a_directory_that_has_something(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    (folder / "empty").mkdir()
    assert main(["quickstart", "mine"]) == 3
    assert "mine is in use; nothing was written" in capsys.readouterr().err
    monkeypatch.chdir(folder / "empty")
    assert main(["quickstart", "."]) == 3
    assert "not the current one" in capsys.readouterr().err
    assert sorted(path.name for path in folder.rglob("*")) == ["empty", "mine", "notes.txt"]


def test_two_quickstarts_do_not_make_one_vault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder / ".callvault-trial.partial"
    (place / "data").mkdir(parents=True)
    other = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main(["quickstart"]) == 3
        assert "another quickstart" in capsys.readouterr().err
        assert [path.name for path in folder.rglob("*")] == [place.name, "data"]
    finally:
        os.close(other)
