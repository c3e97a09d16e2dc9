"""A real OpenBao on free loopback ports: raft storage, static auto-unseal, all state in one temporary directory."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.helpers.seaweed import _die_with_parent, free_ports

MOUNT = "transit"
_CONFIGURATION = """
storage "raft" {{
  path = "{data}"
  node_id = "n1"
  performance_multiplier = "1"
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster}"
  tls_disable = true
}}
{seal}
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster}"
disable_mlock = true
"""
_STATIC_SEAL = """
seal "static" {{
  current_key_id = "k1"
  current_key = "file://{key}"
}}
"""


@dataclass(kw_only=True)
class OpenBao:
    """One server. `start` and `stop` may alternate: port and data stay until `remove`.

    With `static_seal` it unseals itself; without, it is unsealed by its one share and can be sealed again.
    """

    directory: Path
    static_seal: bool = True
    ports: list[int] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    token: str = ""
    share: str = ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def start(self, *, timeout_seconds: float = 60.0) -> None:
        """Return when it is unsealed and answers. Call it in the main thread."""
        self.launch()
        self._until({200, 501, 503}, timeout_seconds)
        if not self.token:
            self._initialise(timeout_seconds)
        elif not self.static_seal:
            self.unseal()
        self._until({200}, timeout_seconds)

    def launch(self) -> None:
        """Start the process without waiting for it."""
        if not self.ports:
            self.ports = free_ports(2)
            self._configure()
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("bao")), "server", f"-config={self.directory / 'bao.hcl'}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it makes one system call and takes no lock
                env={**os.environ, "HOME": str(self.directory), "GOMEMLIMIT": "300MiB"},
            )

    def stop(self) -> None:
        """Kill it as a power cut would."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=20)
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> tuple[int, Any]:
        http = urllib3.PoolManager(timeout=urllib3.Timeout(10.0), retries=False)
        try:
            answer = http.request(
                method,
                f"{self.address}/v1/{path}",
                body=None if body is None else json.dumps(body),
                headers={"X-Vault-Token": self.token if token is None else token},
            )
            return answer.status, json.loads(answer.data) if answer.data else None
        finally:
            http.clear()

    def seal(self) -> None:
        status, _ = self.call("PUT", "sys/seal")
        assert status == 204

    def unseal(self) -> None:
        self.call("PUT", "sys/unseal", {"key": self.share}, token="")
        self._until({200}, 30.0)

    def mount(self, path: str) -> None:
        status, answer = self.call("POST", f"sys/mounts/{path}", {"type": "transit"})
        assert status == 204, answer

    def child_token(self, policy: str, *, ttl: str = "1h") -> str:
        """Return a token that may do what the policy (HCL) says."""
        name = f"p{time.monotonic_ns()}"
        assert self.call("PUT", f"sys/policies/acl/{name}", {"policy": policy})[0] == 204
        status, answer = self.call("POST", "auth/token/create", {"policies": [name], "ttl": ttl})
        assert status == 200, answer
        return str(answer["auth"]["client_token"])

    def _configure(self) -> None:
        (self.directory / "data").mkdir()
        key = self.directory / "seal.key"
        key.write_bytes(os.urandom(32))
        (self.directory / "bao.hcl").write_text(
            _CONFIGURATION.format(
                data=self.directory / "data",
                port=self.ports[0],
                cluster=self.ports[1],
                seal=_STATIC_SEAL.format(key=key) if self.static_seal else "",
            )
        )

    def _initialise(self, timeout_seconds: float) -> None:
        kind = "recovery" if self.static_seal else "secret"
        body = {f"{kind}_shares": 1, f"{kind}_threshold": 1}
        status, answer = self.call("POST", "sys/init", body, token="")
        assert status == 200, answer
        self.token, self.share = answer["root_token"], answer["keys_base64"][0] if not self.static_seal else ""
        if not self.static_seal:
            self.unseal()
        self._until({200}, timeout_seconds)
        self.mount(MOUNT)

    def _until(self, codes: set[int], timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, (self.directory / "log").read_text(errors="replace")[-2000:]
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                if self.call("GET", "sys/health", token="")[0] in codes:
                    return
            time.sleep(0.05)
        raise TimeoutError((self.directory / "log").read_text(errors="replace")[-2000:])


def _serve(*, static_seal: bool):
    server = OpenBao(directory=Path(tempfile.mkdtemp(prefix="openbao-")), static_seal=static_seal)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def openbao():
    """One server for the session. Mark its tests `xdist_group("openbao")`, so that one worker starts it."""
    yield from _serve(static_seal=True)


@pytest.fixture
def fragile_openbao():
    """A server of the test's own, to kill and seal."""
    yield from _serve(static_seal=False)
