"""The `ws` client of node as a recorder: a process of its own, which a test may kill."""

import asyncio
import base64
import json
from contextlib import asynccontextmanager

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
