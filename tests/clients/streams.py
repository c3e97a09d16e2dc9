"""WebSocket clients as recorders, each a process of its own, which a test may kill: node's `ws`, and libwebsockets."""

import asyncio
import atexit
import base64
import functools
import json
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients import CLIENTS, node_modules


class NodeStream:
    """One connection; `opened` has the subprotocol and extensions agreed, or the status that refused it."""

    def __init__(self, process):
        self._process = process
        self._syncs = 0
        self.opened = {}

    async def hears(self):
        """Return the next thing the client tells."""
        async with asyncio.timeout(20):
            line = await self._process.stdout.readline()
        return json.loads(line)

    def say(self, *messages):
        """Send messages; without waiting for anything."""
        for message in messages:
            fact = {"text": message} if isinstance(message, str) else {"binary": base64.b64encode(message).decode()}
            self._write(fact)

    async def said(self):
        """Return once the kernel has everything said so far."""
        self._syncs += 1
        self._write({"sync": self._syncs})
        assert await self.hears() == {"sync": self._syncs}

    async def close(self, code=1000):
        """Close with `code`, or without one (None); return the server's code and reason."""
        self._write({"close": code})
        return await self.closed()

    async def closed(self):
        """Return the code and reason of the close."""
        answer = await self.hears()
        return answer["close"], answer["reason"]

    async def kill(self):
        """SIGKILL."""
        self._process.kill()
        await self._process.wait()

    def _write(self, fact):
        self._process.stdin.write(json.dumps(fact).encode() + b"\n")


@asynccontextmanager
async def node_stream(address, *, token="", subprotocols=(), deflate=True):
    node_modules()
    process = await asyncio.create_subprocess_exec(
        "node",
        CLIENTS / "stream.mjs",
        address,
        token,
        ",".join(subprotocols),
        "on" if deflate else "off",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    stream = NodeStream(process)
    try:
        stream.opened = await stream.hears()
        yield stream
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@functools.cache
def _fork_program():
    """Build `fork.c` once; skips where libwebsockets or a C compiler is missing."""
    wanted = ["pkg-config", "--cflags", "--libs", "libwebsockets"]
    tools = all(map(shutil.which, ("gcc", "pkg-config")))
    flags = subprocess.run(wanted, capture_output=True, text=True, check=False) if tools else None
    if flags is None or flags.returncode:
        pytest.skip("libwebsockets cannot be built with: Debian's gcc, pkg-config and libwebsockets-dev have it")
    program = Path(tempfile.mkdtemp(prefix="callvault-")) / "fork"
    atexit.register(shutil.rmtree, program.parent)
    warnings = ["-Wall", "-Wextra", "-Werror", "-O1"]
    subprocess.run(["gcc", *warnings, "-o", program, CLIENTS / "fork.c", *flags.stdout.split()], check=True)
    return program


class LwsFork:
    """One call forked by libwebsockets."""

    def __init__(self, process):
        self._process = process

    async def hears(self):
        """Return the next word the client tells, "" once it is gone."""
        async with asyncio.timeout(20):
            return (await self._process.stdout.readline()).decode().strip()

    async def kill(self):
        """SIGKILL."""
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def lws_fork(address, recorder, *, token, end):
    """Fork the whole call of `recorder`; `end` is "close", "graceful" or "hang"."""
    basic = base64.b64encode(f"recorder:{token}".encode()).decode()
    place = urlsplit(address)
    process = await asyncio.create_subprocess_exec(
        _fork_program(),
        str(place.port),
        f"{place.path}?{place.query}",
        recorder.subprotocols[0],
        f"Basic {basic}",
        recorder.first[0],
        str(recorder.message_bytes),
        end,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        process.stdin.write(recorder.audio)
        process.stdin.close()
        yield LwsFork(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
