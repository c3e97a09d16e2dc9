import http.client
import json
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.commands import COMMAND, CONFIG, call, command, environment, interpreted


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("vault")
    (directory / "config.toml").write_text(CONFIG)
    made = command(directory, "init")
    assert made.returncode == 0, made.stderr
    return directory, made.stdout.strip()


@pytest.fixture
def server(vault: tuple[Path, str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    directory, _ = vault
    port = directory / "port"
    port.unlink(missing_ok=True)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port-file", "port"], cwd=directory, env=environment(), stderr=log
        )
    try:
        for _ in range(600):
            if port.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        assert port.exists(), (directory / "log").read_text()
        yield process, int(port.read_text())
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_init_prints_one_token_and_a_second_one_changes_nothing(vault: tuple[Path, str]) -> None:
    directory, token = vault
    assert token.startswith("cv_")
    assert "\n" not in token
    before = sorted(directory.rglob("*"))
    again = interpreted(directory, "init")
    assert again.returncode == 7
    assert again.stdout == ""
    assert again.stderr.startswith("error: ")
    assert sorted(directory.rglob("*")) == before


def test_doctor_finds_a_lost_replica_and_repair_rebuilds_it(vault: tuple[Path, str]) -> None:
    directory, _ = vault
    healthy = command(directory, "doctor", "--json")
    assert healthy.returncode == 0, healthy.stderr
    assert json.loads(healthy.stdout)["errors"] == 0
    replica = directory / "data" / "keyring-b"
    shutil.rmtree(replica)
    lost = command(directory, "doctor", "--json")
    found = json.loads(lost.stdout)
    assert any(str(replica) in item["message"] and item["level"] != "ok" for item in found["findings"])
    assert lost.returncode == (5 if found["errors"] else 0)
    repaired = command(directory, "keys", "repair", "data/keyring-b", "--json")
    assert repaired.returncode == 0, repaired.stderr
    assert json.loads(repaired.stdout) == {"repaired": str(replica)}
    again = command(directory, "doctor", "--json")
    named = [each for each in json.loads(again.stdout)["findings"] if "keyring-b" in each["message"]]
    # Three directories side by side are on one disk, and that is told of a whole keyring too.
    assert [each["level"] for each in named if "on one disk" not in each["message"]] == ["ok"]


def test_doctor_asks_the_server_it_is_pointed_at(vault: tuple[Path, str]) -> None:
    directory, _ = vault
    asked = command(directory, "doctor", "--server", "http://127.0.0.1:1", "--json")
    assert asked.returncode == 5
    last = json.loads(asked.stdout)["findings"][-1]
    assert (last["level"], last["subject"]) == ("error", "server")
    assert asked.stderr == "error: doctor found 1 error\n"


def test_doctor_looks_at_a_vault_beside_the_server_that_serves_it(vault, server) -> None:
    directory, _ = vault
    _, port = server
    asked = command(directory, "doctor", "--server", f"http://127.0.0.1:{port}", "--json")
    assert asked.returncode == 0, asked.stdout
    found = json.loads(asked.stdout)["findings"]
    told = {item["subject"]: item["message"] for item in found if item["level"] == "ok"}
    assert told["journal"] == "a process has it open"
    assert told["server"].startswith("ready")
    assert "keyring" in told


def test_whoever_owns_the_files_issues_an_operators_token_beside_the_server(vault, server) -> None:
    directory, token = vault
    _, port = server
    own = call(port, "GET", "/v1/tokens", token)
    [first] = [each["id"] for each in json.loads(own[1])["tokens"] if each["role"] == "operator"]
    refused = call(port, "DELETE", f"/v1/tokens/{first}", token)
    assert refused[0] == 409
    assert "last operator" in refused[1].decode()
    words = ("tokens", "issue", "--role", "operator", "--name", "Kit Moss", "--config", "config.toml")
    issued = json.loads(command(directory, *words, "--json").stdout)
    assert call(port, "GET", "/v1/tokens", issued["token"])[0] == 200
    entries = json.loads(call(port, "GET", "/v1/audit?limit=1000", issued["token"])[1])["entries"]
    [entry] = [each for each in entries if each["target"] == issued["id"]]
    assert (entry["event"], entry["detail"]["action"], entry["actor"]) == ("admin.token", "issued", "vault")
    assert call(port, "DELETE", f"/v1/tokens/{issued['id']}", token)[0] == 204
    assert call(port, "DELETE", f"/v1/tokens/{first}", token)[0] == 409
    other = command(directory, "tokens", "issue", "--role", "agent", "--name", "x", "--config", "config.toml")
    assert other.returncode == 2
    assert "operators' tokens only" in other.stderr


def test_serve_says_where_it_listens_leaves_no_core_outlives_sighup_and_ends_in_good_order(vault, server) -> None:
    directory, token = vault
    process, port = server
    assert call(port, "GET", "/v1/tenants", token)[0] == 200
    limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    core = next(line for line in limits if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    (directory / "config.toml").write_text(CONFIG.replace("4MiB", "8MiB"))
    process.send_signal(signal.SIGHUP)
    said = "settings changed that need a restart"
    for _ in range(200):
        if said in (directory / "log").read_text():
            break
        time.sleep(0.05)
    assert call(port, "GET", "/v1/tenants", token)[0] == 200
    (directory / "config.toml").write_text(CONFIG)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    log = (directory / "log").read_text()
    assert f"callvault listens on http://127.0.0.1:{port}\n" in log
    assert token not in log
    assert '"message":"stopped"' in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["settings"] for line in lines if line["message"] == said] == [["journal.file_bytes"]]


def test_a_second_signal_does_not_wait_for_open_calls(vault, server) -> None:
    _, operator = vault
    process, port = server
    tenant = '{"id": "a-college", "name": "A", "controller": "A", "contact": "a"}'
    assert call(port, "POST", "/v1/tenants", operator, tenant)[0] == 201
    status, issued = call(
        port, "POST", "/v1/tokens", operator, '{"name": "pbx", "role": "recorder", "tenant": "a-college"}'
    )
    assert status == 201
    token = json.loads(issued)["token"]
    # An upload that never ends: the first signal waits for it.
    upload = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    upload.putrequest("PUT", "/v1/ingest/a-college/endless")
    for name, value in (
        ("Authorization", f"Bearer {token}"),
        ("Content-Type", "audio/basic"),
        ("Transfer-Encoding", "chunked"),
    ):
        upload.putheader(name, value)
    upload.endheaders()
    upload.send(b"10\r\n0123456789abcdef\r\n")
    for _ in range(100):
        if call(port, "HEAD", "/v1/ingest/a-college/endless", token)[0] == 200:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 128 + signal.SIGTERM
    upload.close()


def test_serve_raises_the_soft_limit_of_descriptors_and_says_so_and_warns_once_of_a_lost_replica(
    vault: tuple[Path, str],
) -> None:
    directory, _ = vault
    replica = directory / "data" / "keyring-b"
    replica.rename(directory / "away")
    port = directory / "port"
    port.unlink(missing_ok=True)
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4_096)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "/bin/sh",
                "-c",
                f'ulimit -S -n 256; ulimit -H -n {hard}; exec "$@"',
                "sh",
                *COMMAND,
                "serve",
                "--port-file",
                "port",
            ],
            cwd=directory,
            env=environment(),
            stderr=log,
        )
    try:
        for _ in range(600):
            if port.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        lines = [json.loads(line) for line in (directory / "log").read_text().splitlines() if line[:1] == "{"]
        said = next(line for line in lines if line["message"] == "descriptors")
        assert (said["was"], said["limit"]) == (256, hard)
        assert len([line for line in lines if line["message"].startswith(f"keyring.replicas: {replica}")]) == 1
    finally:
        (directory / "away").rename(replica)
        process.terminate()
        assert process.wait(timeout=30) == 0
