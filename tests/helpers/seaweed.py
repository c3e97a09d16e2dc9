"""A real SeaweedFS with its S3 gateway on free loopback ports, all state in one temporary directory."""

import contextlib
import ctypes
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3
from minio import Minio
from minio.error import MinioException

from vault.storage.s3.client import S3Settings

ACCESS_KEY = "testaccesskey0000001"
SECRET_KEY = "testsecretkey000000000000000000000000001"
REGION = "us-east-1"

_PORTS = ("master", "volume", "filer", "s3", "master.port.grpc", "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")
_PROBE = "readiness"
_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """Ask the kernel (PR_SET_PDEATHSIG) to end the server with the thread that started it: none outlives the tests."""
    _LIBC.prctl(1, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


@dataclass(kw_only=True)
class Seaweed:
    """One server. `start` and `stop` may alternate: ports and data stay until `remove`."""

    directory: Path
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self.ports["s3"]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, bucket: str, **changes) -> S3Settings:
        defaults = {
            "endpoint": self.endpoint,
            "region": REGION,
            "allowed_regions": (REGION,),
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "attempts": 1,
            "connect_timeout_seconds": 2.0,
            "read_timeout_seconds": 10.0,
            "operation_timeout_seconds": 20.0,
        }
        return S3Settings(bucket=bucket, **{**defaults, **changes})

    def start(self, *, timeout_seconds: float = 60.0) -> None:
        """Return when a real PUT and GET pass (the health page is seconds early). Call it in the main thread."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._spawn()
            while time.monotonic() < deadline:
                if self._ready():
                    return
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
            else:
                self.stop()
                raise TimeoutError(f"SeaweedFS did not become ready:\n{self._log_tail()}")
            # It ended by itself: most likely somebody took one of the ports between the probe and its bind.
            self.process = None
            self.ports = {}
            if time.monotonic() >= deadline:
                raise RuntimeError(f"SeaweedFS ended:\n{self._log_tail()}")

    def stop(self) -> None:
        """Kill it as a power cut would; acknowledged objects survive."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=20)
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _spawn(self) -> None:
        if not self.ports:
            self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        for name in ("data", "conf"):
            (self.directory / name).mkdir(exist_ok=True)
        (self.directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        ports = [f"-{name if '.' in name else name + '.port'}={port}" for name, port in self.ports.items()]
        binary = Path(sys.executable).with_name("weed")
        command = [
            str(binary), "-logtostderr=true", f"-config_dir={self.directory / 'conf'}", "server",
            f"-dir={self.directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms",
            "-master.volumeSizeLimitMB=256", "-volume.max=4096", "-filer", "-s3",
            f"-s3.config={self.directory / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-s3.autoCreateBucket=false", *ports,
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it makes one system call and takes no lock
                env={**os.environ, "GOMEMLIMIT": "400MiB", "WEED_S3_SSE_KEK": f"{7:064d}"},
            )

    def _ready(self) -> bool:
        http = urllib3.PoolManager(timeout=urllib3.Timeout(2.0), retries=False)
        client = Minio(f"127.0.0.1:{self.port}", ACCESS_KEY, SECRET_KEY, secure=False, region=REGION, http_client=http)
        try:
            if not client.bucket_exists(_PROBE):
                client.make_bucket(_PROBE)
            client.put_object(_PROBE, "x", io.BytesIO(b"1"), 1)
            answer = client.get_object(_PROBE, "x")
            try:
                return answer.read() == b"1"
            finally:
                answer.close()
                answer.release_conn()
        except (MinioException, urllib3.exceptions.HTTPError):
            return False
        finally:
            http.clear()

    def _log_tail(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-2000:]


@pytest.fixture(scope="session")
def seaweed():
    """One server for the session. Mark its tests `xdist_group("seaweed")`, so that one worker starts it."""
    server = Seaweed(directory=Path(tempfile.mkdtemp(prefix="seaweed-")))
    try:
        server.start()
        yield server
    finally:
        server.remove()
