"""The command as a process of its own."""

import http.client
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.server import zygote

CONFIG = """
data = "data"
[server]
port = 0
[journal]
file_bytes = "4MiB"
disk_reserve = "1MiB"
[log]
level = "INFO"
[identity]
processor = "Northfield IT Ltd"
contact = "privacy@northfield.example"
"""


COMMAND = [sys.executable, "-P", "-m", "cli"]


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("CALLVAULT_")}


def call(port: int, method: str, path: str, token: str, body: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    kind = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, body, {"Authorization": f"Bearer {token}", **kind})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def command(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, which finds its imports done."""
    with zygote() as forking:
        code, out, err = forking.run(arguments, directory=directory)
    return subprocess.CompletedProcess(arguments, code, out, err)


def interpreted(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as whoever types it does, with an interpreter of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def port_of(directory: Path) -> int:
    for _ in range(1200):
        if (directory / "port").exists():
            return int((directory / "port").read_text())
        time.sleep(0.05)
    raise AssertionError((directory / "log").read_text()[-3000:])


def until(condition, seconds: float = 60) -> None:
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come about")
