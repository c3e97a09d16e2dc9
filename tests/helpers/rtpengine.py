"""A real rtpengine-recording, and the part of rtpengine that feeds it: the metadata of a call, and its packets.

rtpengine hands packets over through its kernel module. Here a named pipe in packet mode takes the place of each of the
module's files, and `lend.c` leads the daemon to it.
"""

import asyncio
import atexit
import contextlib
import fcntl
import functools
import os
import re
import shutil
import struct
import subprocess
import tempfile
import termios
from asyncio.subprocess import DEVNULL
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.clients import CLIENTS
from tests.helpers.programs import program
from tests.helpers.recorder import until

FRAME = 160
"""Samples of G.711 in one packet."""
TAG = "1c07bd2c44bfb1c9"
"""What rtpengine tells the recordings of one Call-ID apart by; at random there."""


@functools.cache
def daemon():
    """Return the path of an rtpengine-recording of mr13.5 or newer, or skip the test."""
    found = program("rtpengine-recording")
    if "file|db|notify|s3" not in _asked("--help"):
        pytest.skip("rtpengine-recording is older than mr13.5")
    return found


@functools.cache
def _version():
    return int(re.search(r"Version: \D*(\d+)", _asked("--version"))[1])


def _asked(option):
    asked = subprocess.run([program("rtpengine-recording"), option], capture_output=True, text=True, check=True)
    return asked.stdout + asked.stderr


@functools.cache
def _lent():
    """Build `lend.c` once."""
    library = Path(tempfile.mkdtemp(prefix="callvault-")) / "lend.so"
    atexit.register(shutil.rmtree, library.parent)
    words = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([program("gcc"), *words, "-o", library, CLIENTS / "lend.c"], check=True)
    return library


class Call:
    """One call that rtpengine records, after daemon/recording.c: every chunk of metadata is a write of its own."""

    def __init__(self, base, call_id, metadata=None, *, forwarding=False):
        parent = f"{quote(call_id, safe='')}-{TAG}"
        self._meta = base / "spool" / f"{parent}.meta"
        self._streams = base / "proc" / "0" / "calls" / parent
        self._streams.mkdir(parents=True)
        self._pipes = []
        self._said = 0
        self.chunk("CALL-ID", call_id)
        self.chunk("PARENT", parent)
        self.chunk("RANDOM_TAG", TAG)
        self.chunk(f"RECORDING {not forwarding:d}")
        self.chunk(f"FORWARDING {forwarding:d}")
        if metadata is not None:
            self.chunk("METADATA", metadata)
        self.chunk("STARTED")

    def chunk(self, label, value=""):
        data = value.encode()
        with self._meta.open("ab", buffering=0) as file:
            file.write(b"%s\n%d:\n%s\n\n" % (label.encode(), len(data), data))

    def party(self, tag, label, metadata=None):
        """Let a party join, with G.711 µ-law in packets of 20 ms."""
        number = len(self._pipes) + 1
        stream = 2 * number - 1  # the even ones are RTCP
        name = f"tag-{number}-media-1-component-1-RTP-id-{stream}"
        os.mkfifo(self._streams / name)
        pipe = os.open(self._streams / name, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_NONBLOCK | os.O_DIRECT)
        self._pipes.append(pipe)
        self.chunk(f"TAG {number}", tag)
        if metadata is not None:
            self.chunk(f"METADATA-TAG {number}", metadata)
        self.chunk(f"LABEL {number}", label)
        self.chunk(f"MEDIA {number} PTIME 20")
        self.chunk(f"MEDIA {number} PAYLOAD TYPE 0", "PCMU/8000")
        self.chunk(f"MEDIA {number} FMTP 0")
        media = f"MEDIA {number}" if _version() >= 26 else f"MEDIA {number} TAG-MEDIA 1"
        slots = "MEDIA-SDP-ID 0 MEDIA-REC-SLOT 1 MEDIA-REC-SLOTS 1"
        self.chunk(f"STREAM {stream} details", f"TAG {number} {media} COMPONENT 1 FLAGS 65537 {slots}")
        self.chunk(f"STREAM {stream} interface", name)

    async def say(self, *voices):
        """Let the parties speak G.711 µ-law, a packet each in turn; returns once the daemon has read all of it."""
        for at in range(0, max(map(len, voices)), FRAME):
            for number, voice in enumerate(voices, 1):
                if at < len(voice):
                    os.write(self._pipes[number - 1], _packet(number, self._said + at, voice[at : at + FRAME]))
            # A daemon that lags behind reads one stream far ahead of the other, and mixes them so.
            async with asyncio.timeout(10):
                while any(map(_unread, self._pipes)):
                    await asyncio.sleep(0.001)
        self._said += max(map(len, voices))

    def hang_up(self):
        self._meta.unlink()
        for pipe in self._pipes:
            os.close(pipe)


def _unread(pipe):
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


def _packet(number, at, payload):
    """Return one RTP packet with the headers before it as the kernel module has them."""
    rtp = struct.pack("!BBHII", 0x80, 0, at // FRAME, 1_000_000 * number + at, 0x5EED0000 + number) + payload
    udp = struct.pack("!HHHH", 40_000 + 2 * number, 30_000, 8 + len(rtp), 0)
    ends = bytes([192, 0, 2, number, 192, 0, 2, 9])
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp) + len(rtp), 0, 0, 64, 17, 0) + ends + udp + rtp


@contextlib.asynccontextmanager
async def recording(base, configuration, *words):
    """Run the daemon in folders of its own below `base`; yields a function that returns what it has said."""
    for name in ("spool", "proc", "output"):
        (base / name).mkdir(exist_ok=True)
    (base / "daemon.conf").write_text(configuration)
    own = [f"--config-file={base}/daemon.conf", f"--spool-dir={base}/spool", f"--output-dir={base}/output"]
    # With one thread it notices the end of a call after all packets before it.
    own += ["--num-threads=1", "--foreground", "--log-stderr", *words]
    environment = {**os.environ, "LD_PRELOAD": str(_lent()), "RTPENGINE_PROC": str(base / "proc")}
    with (base / "said").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            daemon(), *own, stdin=DEVNULL, stdout=DEVNULL, stderr=said, env=environment
        )
    try:
        await until(lambda: _watches(process.pid))
        yield (base / "said").read_text
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _watches(pid):
    """Tell whether a process waits for changes of files."""
    told = []
    for each in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            told.append(each.read_text())
    return "inotify wd:" in "".join(told)
