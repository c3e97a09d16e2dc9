"""Recorders that are programs of their own: found or skipped, started, fed, killed by their process id."""

import asyncio
import contextlib
import shutil
import signal
from dataclasses import dataclass, field

import pytest


def program(name):
    """Return the path of an installed program, or skip the test and say what is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def ffmpeg():
    """Return the path of ffmpeg out of its wheel."""
    return pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()


@dataclass(kw_only=True)
class Running:
    """One process; `feed` writes to its standard input."""

    process: asyncio.subprocess.Process = field(repr=False)

    async def feed(self, data):
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    def signal(self, number):
        self.process.send_signal(number)

    async def done(self, *, seconds=60):
        """Close its input and return (exit code, standard output, standard error)."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        out, err = await asyncio.wait_for(self.process.communicate(), seconds)
        return self.process.returncode, out, err


@contextlib.asynccontextmanager
async def running(*command, stdin=asyncio.subprocess.PIPE):
    """Run a command until the block ends; whatever is left of it then is killed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*map(str, command), stdin=stdin, stdout=pipe, stderr=pipe)
    try:
        yield Running(process=process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
        process._transport.close()


async def run(*command, seconds=60):
    """Run a command to its end and return (exit code, standard output, standard error)."""
    async with running(*command, stdin=asyncio.subprocess.DEVNULL) as each:
        return await each.done(seconds=seconds)
