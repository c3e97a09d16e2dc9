"""The demo's surroundings: a directory, short durations, the real server as a process, and the calls it records."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from cli.client import Client
from vault.errors import ConfigError, FormatError, IntegrityError, Refused, Unavailable

# -- directory, settings and server -------------------------------------------------------------------------------

BYTES_A_SECOND: Final = 16_000
"""G.711, 8000 Hz, two channels."""

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_COMMAND_SECONDS = 30.0
_LOG_LINES = 5
_CATALOG = "catalog.db"
_OBJECTS = "objects"

_CONFIG = """\
# The real product with short durations: what takes 90 days in earnest takes seconds here.
data = "data"

[server]
port = 0
resume_grace = "5s"

[journal]
file_bytes = "4MiB"
max_bytes = "256MiB"
disk_reserve = "64MiB"

[segments]
max_age = "3s"

[keyring]
lease = "2s"

[retention]
default = "{retention_seconds}s"
floor = "1s"
cohort_width = "1s"
release_grace = "2s"

[sweep]
interval = "1s"
jitter = "0s"

[identity]
processor = "Callvault demo"
contact = "privacy@callvault.example"
"""


def sample_call() -> bytes:
    """Return the sample call: G.711 mu-law, 8000 Hz, caller and callee interleaved."""
    audio = resources.files("cli").joinpath("data", "sample-call.ulaw").read_bytes()
    if len(audio) < 2 * BYTES_A_SECOND or len(audio) % 2:
        raise IntegrityError("the sample call that comes with callvault is damaged", hint="install callvault again")
    return audio


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of a command."""

    code: int
    out: str
    err: str

    def document(self) -> dict[str, Any]:
        """Return its JSON document; Unavailable, with the command's error text, if it failed."""
        if self.code != 0:
            raise Unavailable(f"a command ended with exit code {self.code}: {self.err.strip()}")
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed


class Stage:
    """The directory of one demo."""

    def __init__(self, directory: Path, *, retention_seconds: int) -> None:
        self.directory = directory
        self.config = directory / "config.toml"
        self.data = directory / "data"
        self.log = directory / "server.log"
        self._backup = directory / "backup"
        self._process: asyncio.subprocess.Process | None = None
        self._url = ""
        self.config.write_text(_CONFIG.format(retention_seconds=retention_seconds))

    async def command(self, *arguments: str) -> Answer:
        """Run callvault as a separate process, as a shell would, without this process's settings and token."""
        process = await asyncio.create_subprocess_exec(
            *_program(),
            *arguments,
            cwd=self.directory,
            env=_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                out, err = await process.communicate()
        except TimeoutError as error:
            raise Unavailable(f"callvault {arguments[0]} did not end") from error
        finally:
            await _end(process)
        assert process.returncode is not None
        return Answer(code=process.returncode, out=out.decode(), err=err.decode())

    @asynccontextmanager
    async def server(self) -> AsyncIterator[None]:
        """Run `callvault serve` until the context ends or `stop` was called."""
        port_file = self.directory / "port"
        port_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *_program(),
                *("serve", "--config", str(self.config), "--port-file", str(port_file)),
                cwd=self.directory,
                env=_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
            )
        try:
            self._url = f"http://127.0.0.1:{await self._port(port_file)}"
            yield
        finally:
            await _end(self._process)

    async def _port(self, port_file: Path) -> int:
        assert self._process is not None
        try:
            async with asyncio.timeout(_START_SECONDS):
                while (port := _read_port(port_file)) is None:
                    if self._process.returncode is not None:
                        raise Unavailable(f"the server did not start: {self.last_words()}")
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise Unavailable(f"the server did not start in time: {self.last_words()}") from error
        return port

    async def stop(self) -> int:
        """Send the server SIGTERM and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                return await self._process.wait()
        except TimeoutError as error:
            raise Unavailable(f"the server did not stop: {self.last_words()}") from error

    def back_up(self) -> int:
        """Copy the catalog and the objects, as a nightly backup does; return the bytes of stored objects.

        The keyring and the root keys are in no backup: they are replicated, and old versions are not kept.
        """
        self._backup.mkdir()
        with (
            closing(sqlite3.connect(self.data / _CATALOG)) as live,
            closing(sqlite3.connect(self._backup / _CATALOG)) as copy,
        ):
            live.backup(copy)
        shutil.copytree(self.data / _OBJECTS, self._backup / _OBJECTS)
        return sum(path.stat().st_size for path in (self._backup / _OBJECTS).rglob("*") if path.is_file())

    def restore(self) -> None:
        """Replace the stopped server's files by the backup."""
        for path in self.data.glob(f"{_CATALOG}*"):
            path.unlink()
        shutil.copy(self._backup / _CATALOG, self.data / _CATALOG)
        shutil.rmtree(self.data / _OBJECTS)
        shutil.copytree(self._backup / _OBJECTS, self.data / _OBJECTS)

    def last_words(self) -> str:
        """Return the end of the server's log."""
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])

    def client(self, token: str) -> Client:
        """Return a client of the running server."""
        return Client(self._url, token)


def _read_port(path: Path) -> int | None:
    return int(path.read_text()) if path.exists() else None


def _program() -> tuple[str, ...]:
    # The interpreter that runs this, not whatever `callvault` the PATH has; -P keeps the working directory out.
    return (sys.executable, "-P", "-m", "cli")


def _environment() -> Mapping[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("CALLVAULT_")}


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def make_directory(keep: Path | None) -> Path:
    """Return an empty directory for the demo; Refused if the given one is not empty."""
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="callvault-demo-"))
    try:
        keep.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(keep.iterdir()):
            raise Refused(f"{keep} is not empty; nothing was written", hint="choose a new directory")
    except OSError as error:
        raise ConfigError(f"{keep} cannot be used: {error.strerror}") from error
    return keep.absolute()


# -- the calls that are recorded ----------------------------------------------------------------------------------

CONTENT_TYPE: Final = "audio/PCMU;rate=8000;channels=2"
_PIECES_A_SECOND = 10
_PIECE_BYTES = BYTES_A_SECOND // _PIECES_A_SECOND


@dataclass(slots=True, kw_only=True)
class Call:
    """One call; `sent` counts the bytes handed to the network so far."""

    tenant: str
    key: str
    caller: str
    audio: bytes = field(repr=False)
    sent: int = 0

    @property
    def path(self) -> str:
        """The address where it is recorded."""
        return f"/v1/ingest/{self.tenant}/{self.key}"

    async def _pieces(self) -> AsyncIterator[bytes]:
        began = time.monotonic()
        for number, start in enumerate(range(0, len(self.audio), _PIECE_BYTES)):
            # Paced from the beginning, so that small delays do not add up.
            await asyncio.sleep(max(began + number / _PIECES_A_SECOND - time.monotonic(), 0))
            piece = self.audio[start : start + _PIECE_BYTES]
            yield piece
            self.sent += len(piece)

    async def stream(self, recorder: Client) -> dict[str, Any]:
        """Send the call in real time and return the server's receipt."""
        headers = {
            "Content-Type": CONTENT_TYPE,
            "Call-From": self.caller,
            "Call-To": "+442079460100",
            "Call-Direction": "inbound",
            "Call-Tags": "demo",
        }
        async with recorder.request("PUT", self.path, headers=headers, data=self._pieces()) as response:
            receipt = json.loads(await response.read())
        if not isinstance(receipt, dict):
            raise FormatError("the receipt is not a JSON object")
        return receipt

    async def durable(self, recorder: Client) -> tuple[str, int]:
        """Return the recording's id and how many of its bytes the server states as durable."""
        async with recorder.request("HEAD", self.path) as response:
            return response.headers["Recording-Id"], int(response.headers["Upload-Offset"])
