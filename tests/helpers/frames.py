"""WebSocket frames, byte by byte."""

import asyncio
import base64
import os
import struct

from aiohttp import WSMsgType

from tests.helpers.app import TENANTS
from tests.helpers.uploads import Wire
from vault.model import Role

PATH = f"/v1/ingest/{TENANTS[0]}/ws"


START = b'{"callSid":"call-1","sampleRate":8000,"mixType":"mono"}'


def frame(payload, opcode=2, *, masked=True):
    """Return one final frame; the mask is zero, so that the payload stands in it as it is."""
    size = len(payload)
    short, wide = (
        (size, b"")
        if size < 126
        else (126, struct.pack(">H", size))
        if size < 65_536
        else (127, struct.pack(">Q", size))
    )
    return bytes([0x80 | opcode, 0x80 * masked | short]) + wide + bytes(4 * masked) + payload


async def upgraded(app, *, token=True, protocol="audio.jambonz.org", key="call-1"):
    line = await Wire.to(app)
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    if token:
        headers["Sec-WebSocket-Protocol"] = protocol
        headers["Authorization"] = f"Bearer {app.token(Role.RECORDER)}"
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    line.write(f"GET {PATH}?call_key={key} HTTP/1.1\r\nHost: vault\r\n{head}\r\n".encode())
    assert b" 101 " in await line._reader.readuntil(b"\r\n\r\n")
    return line


async def close_of(line):
    """Return the code of the server's close."""
    async with asyncio.timeout(5):
        while True:
            first, length = await line._reader.readexactly(2)
            payload = await line._reader.readexactly(length)
            if first & 0x0F == WSMsgType.CLOSE:
                return struct.unpack(">H", payload[:2])[0]
