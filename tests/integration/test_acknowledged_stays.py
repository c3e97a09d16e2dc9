"""Whatever a recorder sends, what was acknowledged to it stays: held or not, ended, shortened, replaced, begun anew."""

import asyncio
import hashlib

import pytest

from tests.helpers.app import PCMU, PURPOSE, TENANTS, app, sound
from tests.helpers.s3clients import BUCKET, HEAD
from tests.helpers.s3requests import ask, begun, code, keys, listing, part, recorder
from tests.helpers.uploads import Resumable, Tus, ends
from vault.model import Role

__all__ = ["app", "recorder"]

ONE, TWO = HEAD + sound(20_000, 1), sound(20_000, 2)
SHORT = HEAD + sound(100, 3)


def md5(body):
    return hashlib.md5(body).hexdigest()


async def sent(app, recorder, *, held, pieces=(ONE, TWO)):
    """Return address and recording of an upload whose parts were acknowledged; a hold may protect it."""
    address = await begun(app, recorder)
    identifier = address.partition("uploadId=")[2]
    for number, piece in enumerate(pieces, 1):
        assert (await ask(app, recorder, "PUT", part(address, number), body=piece))[0] == 200
    if held:
        assert (await app.hold(identifier)).status == 201
    return address, identifier


async def found(app, identifier):
    """Return state, audio and parts kept aside, once the recording has ended."""
    session = app.vault.ingest.live(identifier)
    if session is not None:
        async with asyncio.timeout(10):
            await session.done.wait()
    path = f"/v1/recordings/{identifier}"
    state = (await app.ask("GET", path)).json["state"]
    audio = (await app.play(identifier)).body
    notes = (await app.ask("GET", f"{path}/notes", headers=PURPOSE)).json["aside"]
    aside = {}
    for each in notes:
        answer = await app.ask("GET", f"{path}/aside/{each['number']}", headers=PURPOSE)
        assert (answer.status, len(answer.body)) == (200, each["bytes"])
        aside.setdefault(each["part"], []).append(answer.body)
    return state, audio, aside


@pytest.mark.parametrize("held", [False, True])
async def test_an_abort_keeps_every_part_and_names_who_asked(app, recorder, held):
    address, identifier = await sent(app, recorder, held=held)
    assert (await ask(app, recorder, "DELETE", address))[0] == 204
    assert await found(app, identifier) == ("truncated", ONE + TWO, {})
    (entry,) = await app.audit("recording.aborted")
    assert entry["target"] == identifier
    assert entry["actor"].split()[0] == recorder.access_key


async def test_parts_that_no_beginning_reaches_are_kept_by_an_abort(app, recorder):
    address = await begun(app, recorder)
    assert (await ask(app, recorder, "PUT", part(address, 2), body=TWO))[0] == 200
    assert (await ask(app, recorder, "DELETE", address))[0] == 204
    assert await found(app, address.partition("uploadId=")[2]) == ("truncated", b"", {2: [TWO]})


async def test_a_completion_that_shrinks_is_refused_under_a_hold_and_changes_nothing(app, recorder):
    address, identifier = await sent(app, recorder, held=True)
    status, document, _ = await ask(app, recorder, "POST", address, body=listing((2, md5(TWO))))
    assert (status, code(document)) == (409, "OperationAborted")
    assert b"hold" in document
    assert (await ask(app, recorder, "PUT", part(address, 1), body=SHORT))[0] == 200
    shortened = listing((1, md5(SHORT)), (2, md5(TWO)))
    assert (await ask(app, recorder, "POST", address, body=shortened))[0] == 409
    assert (await ask(app, recorder, "DELETE", address))[0] == 204
    assert await found(app, identifier) == ("truncated", SHORT + TWO, {1: [ONE]})


async def test_a_completion_with_everything_is_taken_under_a_hold(app, recorder):
    address, identifier = await sent(app, recorder, held=True)
    assert (await ask(app, recorder, "PUT", part(address, 1), body=ONE))[0] == 200  # its answer was lost: sent again
    assert (await ask(app, recorder, "POST", address, body=listing((1, md5(ONE)), (2, md5(TWO)))))[0] == 200
    assert await found(app, identifier) == ("sealed", ONE + TWO, {})


async def test_parts_that_are_replaced_or_left_out_are_kept_aside(app, recorder):
    address, identifier = await sent(app, recorder, held=False, pieces=(ONE, TWO, TWO[:9]))
    assert (await ask(app, recorder, "PUT", part(address, 1), body=SHORT))[0] == 200
    assert (await ask(app, recorder, "POST", address, body=listing((1, md5(SHORT)), (3, md5(TWO[:9])))))[0] == 200
    assert await found(app, identifier) == ("sealed", SHORT + TWO[:9], {1: [ONE], 2: [TWO]})
    _, _, headers = await ask(app, recorder, "HEAD", f"/s3/{BUCKET}/call.wav")
    assert int(headers["Content-Length"]) == len(SHORT) + 9
    assert await keys(app) == {"call.wav": ("sealed", len(SHORT) + 9 + len(ONE) + len(TWO))}


async def test_what_is_kept_aside_is_for_those_who_may_hear(app, recorder):
    address, identifier = await sent(app, recorder, held=False)
    assert (await ask(app, recorder, "POST", address, body=listing((1, md5(ONE)))))[0] == 200
    assert (await found(app, identifier))[2] == {2: [TWO]}
    path = f"/v1/recordings/{identifier}/aside/0"
    assert (await app.ask("GET", path)).status == 422
    assert (await app.ask("GET", path, Role.RECORDER, headers=PURPOSE)).status == 403
    assert (await app.ask("GET", path.removesuffix("0") + "1", headers=PURPOSE)).status == 404
    ranged = await app.ask("GET", path, headers={**PURPOSE, "Range": "bytes=5-9"})
    assert (ranged.status, ranged.body) == (206, TWO[5:10])


@pytest.mark.parametrize("other", ["PUT", "PutObject"])
async def test_nothing_else_continues_or_ends_an_upload_in_parts(app, recorder, other):
    address, identifier = await sent(app, recorder, held=False)
    if other == "PUT":
        headers = {"Content-Type": "audio/wav"}
        answer = await app.ask("PUT", f"/v1/ingest/{BUCKET}/call.wav", Role.RECORDER, data=ONE, headers=headers)
        assert answer.status == 409
    else:
        assert (await ask(app, recorder, "PUT", f"/s3/{BUCKET}/call.wav", body=ONE))[0] == 200
        assert (await keys(app))["call.wav~2"] == ("sealed", len(ONE))
    assert (await ask(app, recorder, "POST", address, body=listing((1, md5(ONE)), (2, md5(TWO)))))[0] == 200
    assert await found(app, identifier) == ("sealed", ONE + TWO, {})


async def test_nothing_else_continues_or_ends_an_upload_with_an_address(app):
    tus = Tus(app)
    path = await tus.made(6, b"abc", meta={"call_key": "named"})
    headers = {"Content-Type": PCMU, "Upload-Offset": "3"}
    answer = await app.ask("PUT", f"/v1/ingest/{TENANTS[0]}/named", Role.RECORDER, data=b"xyz", headers=headers)
    assert answer.status == 409
    assert (await tus.patch(path, 3, b"def")).status == 204
    assert await ends(app, path, "sealed") == b"abcdef"


@pytest.mark.parametrize("client", [Tus, Resumable])
async def test_an_upload_that_its_client_deletes_keeps_what_was_acknowledged(app, client):
    tus = Tus(app)
    path = await tus.made(6, b"abc")
    assert (await client(app).ask("DELETE", path)).status == 204
    assert await ends(app, path, "truncated") == b"abc"
    (entry,) = await app.audit("recording.terminated")
    assert entry["target"] == path.rpartition("/")[2]


async def test_an_object_over_a_key_is_a_recording_beside_the_one_that_is_there(app, recorder):
    path = f"/s3/{BUCKET}/call"
    for body in (ONE, SHORT):
        assert (await ask(app, recorder, "PUT", path, body=body))[0] == 200
    for method, query in (("DELETE", ""), ("POST", "?delete")):
        status, document, _ = await ask(app, recorder, method, path + query)
        assert (status, code(document)) == (403, "AccessDenied")
    assert await keys(app) == {"call": ("sealed", len(ONE)), "call~2": ("sealed", len(SHORT))}


CALL = sound(8_000)
PLACES = {
    "other bytes": (sound(8_000, 5), {}),
    "fewer bytes": (CALL[:4_000], {}),
    "a range of other bytes": (sound(2_000, 5), {"Content-Range": "bytes 0-1999/2000"}),
    "a range with a smaller total": (CALL[:2_000], {"Content-Range": "bytes 0-1999/2000"}),
    "an offset within": (CALL[100:], {"Upload-Offset": "100"}),
}


@pytest.mark.parametrize("how", PLACES)
@pytest.mark.parametrize("finished", [False, True])
async def test_no_upload_takes_the_place_of_what_is_durable(app, how, finished):
    path, media = f"/v1/ingest/{TENANTS[0]}/call", {"Content-Type": PCMU}
    total = str(len(CALL)) if finished else "*"
    whole = {**media, "Content-Range": f"bytes 0-{len(CALL) - 1}/{total}"}
    first = await app.ask("PUT", path, Role.RECORDER, data=CALL, headers=whole)
    assert first.status == (201 if finished else 202), first.body
    body, headers = PLACES[how]
    answer = await app.ask("PUT", path, Role.RECORDER, data=body, headers={**media, **headers})
    # The same bytes in their own place of a finished call are a repetition.
    same = finished and how == "a range with a smaller total"
    assert answer.status == (200 if same else 409), answer.body
    assert (await app.play(first.json["recording_id"])).body == CALL


async def test_a_shorter_file_of_the_same_name_replaces_nothing(app):
    fields = {"X-Recording-Call-ID": "c1", "X-Recording-File-Name": "f1", "X-Recording-File-Format": "wav"}
    form = b'--b\r\nContent-Disposition: form-data; name="ngfile"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b", **fields}
    path = f"/v1/ingest/{TENANTS[0]}/rtpengine"
    answers = [
        await app.ask("POST", path, Role.RECORDER, data=form + body + b"\r\n--b--\r\n", headers=headers)
        for body in (ONE, SHORT)
    ]
    assert [each.status for each in answers] == [201, 409]
    assert (await app.play(answers[0].json["recording_id"])).body == ONE
