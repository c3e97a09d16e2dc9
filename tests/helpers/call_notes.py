"""A recorder that says what happens in its call."""

import asyncio

from tests.helpers.app import PCMU, PURPOSE, App
from vault.model import Role

CALL = "/v1/ingest/northfield/call-1"


class Recorder:
    """A live upload that is fed piece by piece."""

    def __init__(self, app: App, *, media: str = PCMU, headers=None, path: str = CALL) -> None:
        self._app, self._path = app, path
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        sent = {"Content-Type": media, **(headers or {})}
        self.done = asyncio.create_task(app.ask("PUT", path, Role.RECORDER, data=self._body(), headers=sent))

    async def _body(self):
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def send(self, piece: bytes, *, until: int | None = None) -> None:
        """Send a piece and wait until HEAD tells the offset `until`."""
        self._pieces.put_nowait(piece)
        if until is not None:
            await wait_for(self._app, until, path=self._path)

    async def end(self):
        self._pieces.put_nowait(None)
        return await self.done


async def wait_for(app: App, offset: int, *, path: str = CALL) -> None:
    async with asyncio.timeout(30):  # a machine that is busy with others
        while await told(app, path=path) != offset:
            await asyncio.sleep(0.01)


async def told(app: App, *, path: str = CALL) -> int | None:
    answer = await app.ask("HEAD", path, Role.RECORDER)
    return int(answer.headers["Upload-Offset"]) if answer.status == 200 else None


async def turn(app: App, verb: str, who: Role = Role.RECORDER, *, path: str = CALL):
    answer = await app.ask("POST", f"{path}/{verb}", who)
    assert answer.status == 200, answer.body
    return answer.json


async def notes_of(app: App, recording: str):
    answer = await app.ask("GET", f"/v1/recordings/{recording}/notes", headers=PURPOSE)
    assert answer.status == 200, answer.body
    return answer.json
