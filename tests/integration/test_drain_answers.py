"""While the server shuts down, whoever wants to begin is told when to come back, in the words of each dialect."""

from __future__ import annotations

import asyncio

from tests.helpers.app import PCMU, TENANTS, app, sound
from tests.helpers.frames import START, close_of, frame, upgraded
from tests.helpers.hook_recorders import UUID_FRAME, audio
from tests.helpers.s3clients import BUCKET, HEAD
from tests.helpers.s3requests import ask, code, recorder
from tests.helpers.streams import listener, listening
from tests.helpers.uploads import Resumable, Tus
from vault.model import Role

__all__ = ["app", "recorder"]

CALL = f"/v1/ingest/{TENANTS[0]}/call"


async def test_who_begins_while_the_server_shuts_down_is_told_when_to_come_back(app, recorder):
    path = await Tus(app).made(6, b"abc", meta={"call_key": "begun"})
    app.vault.ingest.draining = True
    media = {"Content-Type": PCMU}
    form = {
        "Content-Type": "multipart/form-data; boundary=b",
        "X-Recording-Call-ID": "call",
        "X-Recording-File-Name": "call.wav",
    }
    file = (
        b'--b\r\nContent-Disposition: form-data; name="ngfile"; filename="call.wav"\r\n\r\n' + HEAD + b"\r\n--b--\r\n"
    )
    answers = {
        "put": await app.ask("PUT", CALL, Role.RECORDER, data=sound(100), headers=media),
        "expect": await app.ask(
            "PUT", CALL, Role.RECORDER, data=sound(100), headers={**media, "Expect": "100-continue"}
        ),
        "append": await app.ask("POST", CALL + "?append", Role.RECORDER, data=sound(100), headers=media),
        "tus": await Tus(app).create(6, b"abc"),
        "tus, the next bytes": await Tus(app).patch(path, 3, b"def"),
        "ietf": await Resumable(app).begin(sound(100), complete=True),
        "rtpengine": await app.ask(
            "POST", f"/v1/ingest/{TENANTS[0]}/rtpengine", Role.RECORDER, data=file, headers=form
        ),
    }
    for name, answer in answers.items():
        assert (answer.status, answer.problem, answer.headers["Retry-After"]) == (503, "unavailable", "5"), name
    for method, place, body in (
        ("PUT", f"/s3/{BUCKET}/call.wav", HEAD + sound(100)),
        ("POST", f"/s3/{BUCKET}/call.wav?uploads", b""),
    ):
        status, document, headers = await ask(app, recorder, method, place, body=body)
        assert (status, code(document), headers["Retry-After"]) == (503, "SlowDown", "5"), place
    line = await upgraded(app)
    line.write(frame(START, 1))
    assert await close_of(line) == 1013
    line.close()
    async with listening(app, audiosocket=listener(app)) as ports:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["audiosocket"])
        writer.write(UUID_FRAME + audio(sound(320)))
        async with asyncio.timeout(5):
            await reader.read()  # its protocol has no word for it: the connection ends
        writer.close()
    assert app.vault.ingest.unfinished == 1


async def test_a_request_that_is_being_authenticated_as_the_server_begins_to_shut_down_begins_nothing(app, monkeypatch):
    reached, go_on = asyncio.Event(), asyncio.Event()
    known = app.vault.access.authorise

    async def slowly(*args, **words):
        reached.set()
        await go_on.wait()
        return await known(*args, **words)

    monkeypatch.setattr(app.vault.access, "authorise", slowly)
    asked = asyncio.create_task(app.ask("PUT", CALL, Role.RECORDER, data=sound(100), headers={"Content-Type": PCMU}))
    await reached.wait()
    app.vault.ingest.draining = True
    go_on.set()
    answer = await asked
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert app.vault.ingest.unfinished == 0
