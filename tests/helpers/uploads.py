"""An upload client made of single requests, for tests that look at every header."""

import asyncio
import base64
from typing import ClassVar

from tests.helpers.app import PCMU, TENANTS
from vault.model import Role

BYTES = "application/offset+octet-stream"
PARTIAL = "application/partial-upload"


def metadata(**members):
    """Return Upload-Metadata; None is a key without a value."""
    pairs = []
    for name, value in members.items():
        raw = value if isinstance(value, bytes) else (value or "").encode()
        pairs.append(name if value is None else f"{name} {base64.b64encode(raw).decode()}")
    return ",".join(pairs)


class Tus:
    """Speaks tus 1.0 to `app` as a recorder of its first tenant."""

    version: ClassVar = {"Tus-Resumable": "1.0.0"}
    place = f"/v1/ingest/{TENANTS[0]}/tus"

    def __init__(self, app, who=Role.RECORDER):
        self.app = app
        self.who = who

    async def ask(self, method, path, data=None, **headers):
        sent = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        return await self.app.ask(method, path, self.who, data=data, headers={**self.version, **sent})

    async def create(self, length=None, data=None, *, meta=None, **headers):
        described = {"filetype": PCMU, **(meta or {})}
        if length is None:
            headers.setdefault("Upload_Defer_Length", "1")
        else:
            headers["Upload_Length"] = str(length)
        if data is not None:
            headers.setdefault("Content_Type", BYTES)
        return await self.ask("POST", self.place, data, Upload_Metadata=metadata(**described), **headers)

    async def made(self, length=None, data=None, **more):
        """Create an upload and return its path."""
        answer = await self.create(length, data, **more)
        assert answer.status == 201, answer.body
        return self.path(answer)

    def path(self, answer):
        location = answer.headers["Location"]
        assert location.startswith(self.app.url + self.place + "/rec_")
        return location.removeprefix(self.app.url)

    async def patch(self, path, offset, data=b"", **headers):
        headers.setdefault("Content_Type", BYTES)
        return await self.ask("PATCH", path, data, Upload_Offset=str(offset), **headers)

    async def head(self, path, **headers):
        return await self.ask("HEAD", path, **headers)

    async def offset(self, path):
        answer = await self.head(path)
        assert answer.status in (200, 204), answer
        return int(answer.headers["Upload-Offset"])


class Resumable(Tus):
    """Speaks the IETF's resumable uploads in one interop version."""

    def __init__(self, app, version=8, who=Role.RECORDER):
        super().__init__(app, who)
        self.version = {"Upload-Draft-Interop-Version": str(version)}

    async def begin(self, data=b"", *, complete, method="POST", **headers):
        headers.setdefault("Content_Type", PCMU)
        return await self.ask(method, self.place, data, Upload_Complete="?1" if complete else "?0", **headers)

    async def add(self, path, offset, data=b"", *, complete, **headers):
        headers.setdefault("Content_Type", PARTIAL)
        headers.setdefault("Upload_Complete", "?1" if complete else "?0")
        return await self.ask("PATCH", path, data, Upload_Offset=str(offset), **headers)


class Wire:
    """A client that sees interim responses and can fall silent; a recorder, if it names no other token."""

    def __init__(self, app, reader, writer):
        self._app, self._reader, self._writer = app, reader, writer

    @classmethod
    async def to(cls, app):
        host, _, port = app.url.removeprefix("http://").rpartition(":")
        return cls(app, *await asyncio.open_connection(host, int(port)))

    def send(self, method, path, body=b"", *, version="1.1", **headers):
        token = self._app.token(Role.RECORDER)
        lines = {"Host": "vault", "Authorization": f"Bearer {token}"}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = {name: value for name, value in lines.items() if value is not None}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._writer.write(f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode() + body)

    def write(self, body):
        self._writer.write(body)

    async def answer(self):
        """Return the next response, interim ones included: status, headers, body."""
        status, headers = await self.head()
        return status, headers, await self._reader.readexactly(int(headers.get("Content-Length", 0)))

    async def head(self):
        """Return the next response but its body, which is left to be read."""
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)).decode()
        status, *lines = head.split("\r\n")
        return int(status.split()[1]), dict(line.split(": ", 1) for line in lines if line)

    def close(self):
        self._writer.transport.abort()


def recording(path):
    return path.rpartition("/")[2]


async def ends(app, path, state):
    """Wait until the recording behind an upload has ended, and return its stored bytes; they play."""
    for _ in range(400):
        shown = (await app.ask("GET", f"/v1/recordings/{recording(path)}", Role.COMPLIANCE)).json
        if shown["state"] != "open":
            break
        await asyncio.sleep(0.02)
    assert shown["state"] == state, shown
    played = await app.play(recording(path))
    assert played.status == 200
    return played.body
