"""What every benchmark shares: the machine, the commit, a served vault, CPU time of another process."""

import asyncio
import contextlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import uvloop

from vault.server.connections.tls import tune

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


def commit():
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def machine():
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}


def report(name, **figures):
    """Print the one JSON line."""
    print(json.dumps({"benchmark": name, **figures, "commit": commit(), "machine": machine()}), flush=True)


def cpu_seconds(pid):
    """User and system seconds of a process, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def system_seconds(pid):
    """The kernel's share of `cpu_seconds`: sockets, page cache, page faults."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[12]) / TICKS


def written_bytes(pid):
    """What a process has given the kernel to write, to files: sockets do not count."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def rss_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def anonymous_bytes(pid):
    """Resident memory that is the process's own: without mapped files, which the kernel takes back as it likes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


def wait_for(path, process, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().strip():
            return int(path.read_text())
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        time.sleep(0.05)
    raise RuntimeError("the server did not start")


def pin(core):
    """Keep this process on one core."""
    os.sched_setaffinity(0, {core % os.cpu_count()})


@contextlib.contextmanager
def child(command, port_file, core=0):
    """Run a server pinned to one core, or to none with None, until the block ends; yields (process, port)."""
    with tempfile.TemporaryFile() as log:
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        process = subprocess.Popen([*pinned, *command], cwd=ROOT, stderr=log, stdout=log)
        try:
            yield process, wait_for(port_file, process)
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-2000:])
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


CONFIG = """
[server]
port = 0
drain_grace = "1s"
[journal]
disk_reserve = "64MiB"
[sweep]
interval = "1h"
"""


@contextlib.contextmanager
def served_vault(config=CONFIG, workers=1):
    """Init and serve a vault in a temporary directory; yields (process, base URL, operator token).

    One worker is pinned to a core; several have them all.
    """
    with tempfile.TemporaryDirectory(prefix="callvault-bench-") as directory:
        base = Path(directory)
        (base / "config.toml").write_text(config)
        made = subprocess.run(
            [sys.executable, "-m", "cli", "init", "--trial", "--config", str(base / "config.toml"), "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        token = json.loads(made.stdout)["operator_token"]
        port_file = base / "port"
        command = [sys.executable, "-m", "cli", "serve", "--config", str(base / "config.toml")]
        command += ["--port-file", str(port_file)]
        command += ["--workers", str(workers)] if workers > 1 else []
        with child(command, port_file, core=0 if workers == 1 else None) as (process, port):
            yield process, f"http://127.0.0.1:{port}", token


async def recorder_token(url, operator):
    """Create the tenant `bench` and return a recorder's token for it."""
    headers = {"Authorization": f"Bearer {operator}"}
    async with aiohttp.ClientSession(url, headers=headers) as session:
        tenant = {"id": "bench", "name": "Bench", "controller": "Bench", "contact": "bench@example.org"}
        async with session.post("/v1/tenants", json=tenant) as answer:
            assert answer.status == 201, await answer.text()
        token = {"name": "bench recorder", "role": "recorder", "tenant": "bench"}
        async with session.post("/v1/tokens", json=token) as answer:
            assert answer.status == 201, await answer.text()
            return (await answer.json())["token"]


def run(main):
    """Run a benchmark's coroutine on uvloop in a process tuned as the server's is."""
    tune()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
