"""Server processes that tests kill: a zygote imports everything once and forks one server after another.

`python -m tests.helpers.server` is the zygote: it reads one JSON line a command and answers with one JSON line.
"""

import asyncio
import atexit
import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import uvloop

from cli.main import COMMANDS, main
from tests.helpers.approvals import issue_apart
from vault.config import Config, parse_config
from vault.model import Role
from vault.server.app import serve
from vault.telemetry import configure_logging
from vault.wiring import init_vault, open_vault
from vault.wiring.backup import restore_vault

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1
TENANT = "northfield"
PURPOSE = {"Purpose": "quality"}


def bearer(token, **headers):
    return {"Authorization": f"Bearer {token}", **headers}


@dataclass(kw_only=True)
class Site:
    """A vault's directory, configuration and tokens; made once, served by many processes."""

    directory: Path
    document: dict
    tokens: dict = field(repr=False)

    @property
    def config(self) -> Config:
        return parse_config(self.document, base=self.directory)

    def auth(self, role, **headers):
        return bearer(self.tokens[role], **headers)


def document(**sections):
    """Return a configuration fit for tests: any port, no clock guard in the way, small steps; sections are merged."""
    base = {
        "server": {"port": 0, "idle_timeout": "5s", "resume_grace": "2s", "drain_grace": "2s"},
        "journal": {"max_bytes": "64MiB", "file_bytes": "128KiB", "disk_reserve": "64KiB"},
        "segments": {"max_bytes": "64KiB", "max_age": "1s"},
        "sweep": {"enabled": False},
        "log": {"level": "WARNING"},
    }
    return {name: {**base.get(name, {}), **sections.get(name, {})} for name in {*base, *sections}}


async def make_site(directory, *, clock=None, roles=("recorder", "agent"), **sections):
    """Initialise a vault with one tenant and a token for each role; `operator` and `operator2` are always there."""

    site = Site(directory=directory, document=document(**sections), tokens={})
    made = await init_vault(site.config, trial=True, clock=clock)
    site.tokens["operator"] = made.operator_token
    async with open_vault(site.config, clock=clock, background=False) as vault:
        await vault.tenants.add(
            identifier=TENANT,
            name="Northfield",
            controller="Northfield College",
            contact="dpo@example.org",
            retention=None,
            actor=None,
        )
        for role in roles:
            site.tokens[role] = await issue_apart(vault, Role(role), TENANT, name=role)
        _, site.tokens["operator2"] = await vault.access.issue(
            name="second operator", role=Role.OPERATOR, tenant=None, actor=None
        )
    return site


class ServerProcess:
    """One server; `kill` and `terminate` act on its own process id alone."""

    def __init__(self, zygote, pid):
        self._zygote = zygote
        self.pid = pid
        self.url = ""
        """Empty until it listens."""

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def kill(self):
        """SIGKILL, and wait until the process is gone."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)

    def wait(self):
        """Return the exit code, negative for a signal."""
        return self._zygote.ask({"do": "wait", "pid": self.pid})["exit"]


class Zygote:
    """The process that forks servers; blocking, every answer comes within milliseconds except a `wait`."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.server"], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._running = set()

    def ask(self, command):
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "exit" in answer:
            self._running.discard(command["pid"])
        return answer

    def launch(self, site, *, file_size_limit=None):
        """Fork a server over `site` and return its process at once; its log goes to `server.log` beside the data."""
        (site.directory / "port").unlink(missing_ok=True)
        command = {
            "do": "start",
            "document": site.document,
            "directory": str(site.directory),
            "file_size_limit": file_size_limit,
        }
        pid = self.ask(command)["pid"]
        self._running.add(pid)
        return ServerProcess(self, pid)

    def run(self, arguments, *, directory, uid=None):
        """Run a `callvault` command, as another user with `uid`, and return exit code, standard output and error."""
        pid = self.ask({"do": "run", "arguments": arguments, "directory": str(directory), "uid": uid})["pid"]
        self._running.add(pid)
        code = ServerProcess(self, pid).wait()
        return code, *[(Path(directory) / f".{name}").read_text() for name in ("out", "err")]

    def restore(self, site, destination, *, backup=None, dies_at=None):
        """Fork a process that restores a backup into `site` and, at its `dies_at`-th sign of progress, kills itself."""
        command = {
            "do": "restore",
            "document": site.document,
            "directory": str(site.directory),
            "destination": destination,
            "backup": backup,
            "dies_at": dies_at,
            "file_size_limit": None,
        }
        pid = self.ask(command)["pid"]
        self._running.add(pid)
        return ServerProcess(self, pid)

    def start(self, site, *, file_size_limit=None):
        """Fork a server over `site` and return once it listens."""
        server = self.launch(site, file_size_limit=file_size_limit)
        port_file = site.directory / "port"
        end = time.monotonic() + _START_SECONDS
        while not port_file.exists():
            if self.ask({"do": "poll", "pid": server.pid})["gone"] or time.monotonic() > end:
                raise AssertionError(f"the server did not start; its log:\n{log_of(site)}")
            time.sleep(0.005)
        server.url = port_file.read_text()
        return server

    def clear(self):
        """Kill what still runs."""
        for pid in tuple(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.ask({"do": "wait", "pid": pid})

    def close(self):
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


_idle = []


@contextlib.contextmanager
def zygote():
    """Lend a zygote; one that comes back serves whoever asks next, for its imports take longer than most tests."""
    if not _idle:
        _idle.append(Zygote())
        atexit.register(_idle[0].close)
    process = _idle.pop()
    try:
        yield process
    finally:
        process.clear()
        _idle.append(process)


def log_of(site):
    path = site.directory / "server.log"
    return path.read_text()[-4000:] if path.exists() else ""


def log_lines(site):
    """Return the server's log as objects; a line that is no JSON is a traceback and comes back as text."""
    lines = []
    path = site.directory / "server.log"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            lines.append(line)
    return lines


@contextlib.asynccontextmanager
async def session(server):
    """Open an HTTP client for one server process; nothing pooled survives it."""
    async with aiohttp.ClientSession(server.url, timeout=aiohttp.ClientTimeout(total=30)) as client:
        yield client


@contextlib.asynccontextmanager
async def in_process(site, *, clock=None):
    """Serve `site` inside the test's own loop and yield (vault, url)."""

    async with open_vault(site.config, clock=clock) as vault:
        stop = asyncio.Event()
        url = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(vault, site.config, stop=stop, started=url.set_result))
        try:
            await asyncio.wait([url, serving], return_when=asyncio.FIRST_COMPLETED)
            yield vault, await url
        finally:
            stop.set()
            await serving


# -- the zygote's side ------------------------------------------------------------------------------------------


def _fork(command, work):
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        _child(command, work)
        code = 0
    finally:
        os._exit(code)


def _child(command, work):

    # A zygote that dies takes its servers along, so that no test leaves one behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    directory = Path(command["directory"])
    log = os.open(directory / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    config = parse_config(command["document"], base=directory)
    configure_logging(level=config.log.level, stream=os.fdopen(2, "w", buffering=1, closefd=False))
    if (limit := command["file_size_limit"]) is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        uvloop.run(work(config, command))
    except BaseException:
        traceback.print_exc()
        raise


def _run(command):
    """Fork a command line of its own; its output goes into hidden files of the directory it runs in."""
    # Another user may not be able to read the interpreter's own library, so what a command loads is loaded now.
    late = ("aiosqlite", "encodings.ascii", "multiprocessing", "vault.wiring.proof", "vault.wiring.backup")
    shown = ("cli.transport", "rich.console", "rich.progress", "rich.table")
    for each in (*late, *shown, *COMMANDS.values()):
        importlib.import_module(each)
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        # The zygote may have been started by a test with variables of its own.
        for name in [each for each in os.environ if each.startswith("CALLVAULT_")]:
            del os.environ[name]
        os.chdir(command["directory"])
        for number, name in ((1, ".out"), (2, ".err")):
            opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(opened, number)
        # The zygote's own standard output is a pipe, and Python keeps what it knows of it.
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        if command["uid"] is not None:
            os.setgroups([])
            os.setresgid(command["uid"], command["uid"], command["uid"])
            os.setresuid(command["uid"], command["uid"], command["uid"])
        try:
            code = main(command["arguments"])
        except BaseException:
            traceback.print_exc()
            raise
        sys.stdout.flush()
    finally:
        os._exit(code)


class _Doomed:
    """Watches a restore and ends the process at one sign of progress, as nothing but SIGKILL does."""

    def __init__(self, dies_at):
        self._left = dies_at

    def begin(self, step, total):
        self.advance(0)

    def advance(self, count):
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


async def _restore(config, command):
    progress = _Doomed(command["dies_at"])
    await restore_vault(config, command["destination"], command["backup"], progress=progress)


async def _serve(config, command):

    port_file = Path(command["directory"]) / "port"
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    def started(url):
        whole = port_file.with_suffix(".new")
        whole.write_text(url)
        whole.rename(port_file)

    async with open_vault(config) as vault:
        await serve(vault, config, stop=stop, started=started)


def _main():
    gone = {}
    for line in sys.stdin:
        command = json.loads(line)
        pid = command.get("pid")
        match command["do"]:
            case "start":
                answer = {"pid": _fork(command, _serve)}
            case "restore":
                answer = {"pid": _fork(command, _restore)}
            case "run":
                answer = {"pid": _run(command)}
            case "poll":
                if pid not in gone:
                    found, status = os.waitpid(pid, os.WNOHANG)
                    if found:
                        gone[pid] = os.waitstatus_to_exitcode(status)
                answer = {"gone": pid in gone}
            case _:
                if pid not in gone:
                    gone[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                answer = {"exit": gone[pid]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
