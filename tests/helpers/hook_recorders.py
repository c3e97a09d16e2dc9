"""Recorders of AudioHook, AudioSocket and rtpengine's TCP stream that can be cut off, killed and started again.

`python -m tests.helpers.hook_recorders NAME WHERE TOKEN` records until it is killed, and says when it has begun.
"""

import asyncio
import contextlib
import itertools
import sys
from uuid import UUID, uuid4

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.helpers.audiohook_client import CALL_KEY, Client, headers

TENANT = "northfield"
CALL = "40325ec2-5efd-4bd3-805f-53576e581d13"
"""The example of Asterisk's documentation of AudioSocket."""
PIECE_BYTES = 320


def frame(kind, payload=b""):
    """Asterisk, res/res_audiosocket.c: type, length in network order, payload."""
    return bytes([kind]) + len(payload).to_bytes(2, "big") + payload


def audio(payload, kind=0x10):
    return frame(kind, payload)


UUID_FRAME = frame(0x01, UUID(CALL).bytes)


def piece(number):
    """Return the audio of 20 ms, which looks like no other's."""
    return number.to_bytes(4, "big") * (PIECE_BYTES // 4)


class Stream:
    """What writes to a TCP connection and ends by closing it."""

    opening: bytes
    key: str

    def __init__(self, port, _):
        self._port = int(port)

    async def begin(self):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self.opening)

    async def say(self, data):
        self._writer.write(self.framed(data))
        await self._writer.drain()

    async def end(self):
        """Return once the vault has closed too."""
        self._writer.write_eof()
        assert await self._reader.read() == b""
        self._writer.close()

    async def gone(self):
        """Return once the vault is gone."""
        with contextlib.suppress(ConnectionError):
            await self._reader.read()
        self._writer.close()


class AudioSocket(Stream):
    opening = UUID_FRAME
    key = CALL

    def framed(self, data):
        return audio(data)


class Rtpengine(Stream):
    opening = b"call_key:call-7|direction:inbound\0"
    key = "call-7"

    def framed(self, data):
        return data


class AudioHook:
    key = CALL_KEY

    def __init__(self, url, token):
        self._url = url.replace("http", "ws", 1) + f"/v1/ingest/{TENANT}/audiohook"
        self._token = token

    async def begin(self):
        self._client = Client(str(uuid4()))
        sent = headers(self._token, session=self._client.session)
        self._socket = await connect(self._url, additional_headers=sent, compression=None)
        await self._socket.send(self._client.open())
        kind, _ = self._client.heard(await self._socket.recv())
        if kind != "opened":
            raise ConnectionError(kind)

    async def say(self, data):
        await self._socket.send(data)

    async def end(self):
        """Return once the session is closed."""
        await self._socket.send(self._client.say("close", reason="end"))
        assert self._client.heard(await self._socket.recv())[0] == "closed"
        await self._socket.close()

    async def gone(self):
        """Return once the vault is gone."""
        with contextlib.suppress(ConnectionClosed):
            await self._socket.recv()


RECORDERS = {"audiohook": AudioHook, "audiosocket": AudioSocket, "rtpengine": Rtpengine}


async def _record(name, where, token):
    recorder = RECORDERS[name](where, token)
    await recorder.begin()
    for number in itertools.count():
        await recorder.say(piece(number))
        if number == 20:
            sys.stdout.write("begun\n")
            sys.stdout.flush()
        await asyncio.sleep(0.005)


if __name__ == "__main__":
    asyncio.run(_record(*sys.argv[1:]))
