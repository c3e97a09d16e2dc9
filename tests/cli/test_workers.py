"""`callvault serve --workers`: several processes behind one port, each with a journal of its own."""

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.commands import COMMAND, CONFIG, call, command, environment, interpreted, port_of, until

COUNT = 3


def made(directory: Path, token: str) -> str:
    """Add a tenant and return a recorder's token; needs a server for that."""
    given = {**environment(), "CALLVAULT_TOKEN": token, "CALLVAULT_SERVER": f"http://127.0.0.1:{port_of(directory)}"}

    def run(*words: str) -> str:
        done = subprocess.run([*COMMAND, *words], cwd=directory, env=given, capture_output=True, timeout=60, check=True)
        return done.stdout.decode()

    run("tenants", "add", "acme", "--name", "A", "--controller", "A plc", "--contact", "dpo@a.example")
    issued = run("tokens", "issue", "--role", "recorder", "--tenant", "acme", "--name", "pbx", "--json")
    return str(json.loads(issued)["token"])


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def put(port: int, token: str, key: str, data: bytes) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "audio/PCMU;rate=8000;channels=1"}
    connection.request("PUT", f"/v1/ingest/acme/{key}", data, headers)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def metric(text: str, name: str) -> dict[str, float]:
    """Return the metric's value by worker."""
    found = {}
    for line in text.splitlines():
        if line.startswith(f"{name}{{"):
            labels, _, value = line.rpartition(" ")
            number = labels.partition('worker="')[2].partition('"')[0]
            found[number] = found.get(number, 0) + float(value)
    return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("workers")
    (directory / "config.toml").write_text(CONFIG)
    initialised = command(directory, "init")
    assert initialised.returncode == 0, initialised.stderr
    return directory, initialised.stdout.strip()


@pytest.fixture
def supervisor(directory: tuple[Path, str]) -> Iterator[subprocess.Popen[bytes]]:
    where, _ = directory
    (where / "port").unlink(missing_ok=True)
    with (where / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--workers", str(COUNT), "--port-file", "port"],
            cwd=where,
            env=environment(),
            stderr=log,
        )
    try:
        port_of(where)
        yield process
    finally:
        workers = children(process.pid)
        process.kill()
        process.wait()
        until(lambda: all(gone(pid) for pid in workers))


def test_workers_share_a_port_and_tell_their_metrics_apart(
    directory: tuple[Path, str], supervisor: subprocess.Popen[bytes]
) -> None:
    where, operator = directory
    port = port_of(where)
    recorder = made(where, operator)
    for n in range(12):
        status, answer = put(port, recorder, f"call-{n}", os.urandom(8000))
        assert status == 201, answer
    told = [call(port, "GET", "/metrics", operator)[1].decode() for _ in range(4)]
    for text in told:
        assert metric(text, "callvault_worker_up") == {str(n): 1.0 for n in range(COUNT)}
        assert sum(metric(text, "callvault_ingest_bytes_total").values()) == 12 * 8000
    assert {path.name for path in (where / "data" / "journal").glob("worker-*")} == {"worker-1", "worker-2"}

    victim, *others = children(supervisor.pid)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len({*children(supervisor.pid)} - {victim}) == COUNT)
    assert set(others) < set(children(supervisor.pid))
    for n in range(12, 24):
        assert put(port, recorder, f"call-{n}", os.urandom(8000))[0] == 201
    until(lambda: sum(metric(call(port, "GET", "/metrics", operator)[1].decode(), "callvault_worker_up").values()) == 3)

    workers = children(supervisor.pid)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(timeout=60) == 0
    assert all(gone(pid) for pid in workers)


def test_workers_end_with_a_killed_parent_and_a_lost_workers_journal_stops_a_smaller_start(
    directory: tuple[Path, str], supervisor: subprocess.Popen[bytes]
) -> None:
    where, _ = directory
    workers = children(supervisor.pid)
    assert len(workers) == COUNT
    supervisor.kill()
    supervisor.wait()
    until(lambda: all(gone(pid) for pid in workers))
    left = where / "data" / "journal" / "worker-2" / "journal-000000000099.cvj"
    left.write_bytes(b"")
    for words in (["serve"], ["serve", "--workers", "2"]):
        refused = interpreted(where, *words)
        assert refused.returncode == 7
        assert "worker-2" in refused.stderr
        assert "journal recover" in refused.stderr
    left.unlink()


def test_a_worker_that_cannot_start_stops_them_all(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    assert command(tmp_path, "init").returncode == 0
    # What the parent looks at is there: a worker finds out what it is worth.
    (tmp_path / "data" / "issuer.pem").write_text("no key")
    refused = interpreted(tmp_path, "serve", "--workers", "2")
    assert refused.returncode == 7
    assert "issuer key" in refused.stderr
    (tmp_path / "config.toml").write_text(CONFIG + '[objects]\nkind = "memory"\n')
    refused = interpreted(tmp_path, "serve", "--workers", "2")
    assert refused.returncode == 7
    assert "memory" in refused.stderr
