"""The IETF's resumable uploads case by case: the draft's examples and what tusd tests of its interop versions."""

import asyncio
import hashlib
import json

import pytest
import pytest_asyncio

from tests.helpers.app import PCMU, TENANTS, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.uploads import BYTES, PARTIAL, Resumable, Tus, Wire, ends, metadata, recording
from vault.model import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
REGISTERED = "https://iana.org/assignments/http-problem-types#"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app():
    with memory_directory() as base:
        async with running(base) as each:
            yield each


@pytest.fixture(params=[6, 8])
def upload(app, request):
    return Resumable(app, request.param)


# -- creation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_all_in_one_request_is_answered_with_the_receipt(app, upload, method):
    data = sound(300_000)
    answer = await upload.begin(data, complete=True, method=method)
    assert answer.status == 201
    assert answer.headers["Upload-Complete"] == "?1"
    assert answer.headers["Upload-Offset"] == str(len(data))
    assert "Tus-Resumable" not in answer.headers
    path = upload.path(answer)
    assert answer.json["recording_id"] == recording(path)
    assert answer.json["sha256"] == hashlib.sha256(data).hexdigest()
    assert await ends(app, path, "sealed") == data


async def test_a_careful_client_creates_first_and_sends_then(app, upload):
    data = sound(5_000)
    answer = await upload.begin(complete=False, Upload_Length="5000")
    assert (answer.status, answer.headers["Upload-Complete"], answer.headers["Upload-Offset"]) == (201, "?0", "0")
    lifetime = "expires" if upload.version["Upload-Draft-Interop-Version"] == "6" else "max-age"
    limit = answer.headers["Upload-Limit"]
    assert limit == f"max-size={app.config.server.max_recording_bytes}, {lifetime}=3600"
    path = upload.path(answer)
    head = await upload.head(path)
    assert (head.status, head.headers["Upload-Offset"], head.headers["Upload-Length"]) == (204, "0", "5000")
    assert (head.headers["Upload-Complete"], head.headers["Cache-Control"]) == ("?0", "no-store")
    assert head.headers["Upload-Limit"] == limit
    some = await upload.add(path, 0, data[:3_000], complete=False)
    assert (some.status, some.headers["Upload-Complete"], some.headers["Upload-Offset"]) == (204, "?0", "3000")
    rest = await upload.add(path, 3_000, data[3_000:], complete=True)
    assert (rest.status, rest.headers["Upload-Complete"], rest.headers["Upload-Offset"]) == (201, "?1", "5000")
    head = await upload.head(path)
    assert (head.headers["Upload-Complete"], head.headers["Upload-Offset"]) == ("?1", "5000")
    assert await ends(app, path, "sealed") == data


async def test_an_upload_of_unknown_length_ends_when_its_client_says_so(app, upload):
    path = upload.path(await upload.begin(b"abc", complete=False))
    assert "Upload-Length" not in (await upload.head(path)).headers
    assert (await upload.add(path, 3, b"def", complete=False)).status == 204
    answer = await upload.add(path, 6, complete=True)
    assert (answer.status, answer.headers["Upload-Complete"]) == (201, "?1")
    assert await ends(app, path, "sealed") == b"abcdef"


async def test_the_headers_of_a_plain_upload_describe_the_call(app, upload):
    answer = await upload.begin(
        b"RIFF\0\0\0\0WAVEdata" * 4,
        complete=True,
        Content_Type="application/octet-stream",
        Content_Disposition="inline; filename=\"call.bin\"; filename*=UTF-8''desk%201.wav",
        Call_From="+441632960001",
        Call_Tags="vip",
    )
    assert answer.status == 201
    shown = (await app.ask("GET", f"/v1/recordings/{answer.json['recording_id']}", Role.COMPLIANCE)).json
    assert shown["call"]["caller"] == "+441632960001"
    assert shown["call"]["tags"] == ["vip"]
    assert shown["call"]["call_key"].startswith("desk=201.wav")


async def test_a_creation_repeated_for_a_named_call_leads_to_its_unfinished_upload(app, upload):
    named = {"Upload_Metadata": metadata(call_key=f"named-{upload.version['Upload-Draft-Interop-Version']}")}
    path = upload.path(await upload.begin(b"abc", complete=False, Upload_Length="6", **named))
    again = await upload.begin(b"abcdef", complete=True, **named)
    # What comes again is not taken: the client hears where to go on.
    assert (again.status, again.headers["Upload-Offset"], again.headers["Upload-Complete"]) == (201, "3", "?0")
    assert upload.path(again) == path
    assert (await upload.add(path, 3, b"def", complete=True)).status == 201
    assert await ends(app, path, "sealed") == b"abcdef"


async def test_a_creation_that_is_not_right_is_refused(app, upload):
    for body, headers, status, kind in (
        (b"abc", {"Upload_Complete": "maybe"}, 400, None),
        (b"abc", {"Upload_Length": "4"}, 400, "inconsistent-upload-length"),
        (b"", {}, 422, None),
        (b"abc", {"Content_Type": "video/mp4"}, 415, None),
        (b"abc", {"Content_Type": None}, 415, None),
    ):
        answer = await upload.ask(
            "POST", upload.place, body, **{"Upload_Complete": "?1", "Content_Type": PCMU, **headers}
        )
        assert answer.status == status, headers
        if kind:
            assert answer.json["type"] == REGISTERED + kind
    too_large = await upload.begin(complete=False, Upload_Length="999999999999")
    assert too_large.status == 413
    assert too_large.headers["Upload-Limit"] == f"max-size={app.config.server.max_recording_bytes}"
    longer = await upload.begin(b"abcd", complete=False, Upload_Length="3")
    assert (longer.status, longer.json["type"]) == (400, REGISTERED + "inconsistent-upload-length")


# -- append -----------------------------------------------------------------------------------------------------


async def test_another_offset_is_409_with_both_offsets(upload):
    path = upload.path(await upload.begin(b"abc", complete=False))
    answer = await upload.add(path, 5, b"x", complete=False)
    assert (answer.status, answer.headers["Upload-Offset"]) == (409, "3")
    assert answer.json["type"] == REGISTERED + "mismatching-upload-offset"
    assert (answer.json["expected-offset"], answer.json["provided-offset"]) == (3, 5)
    assert await upload.offset(path) == 3


async def test_an_append_that_is_not_right_is_refused_and_nothing_of_it_kept(upload):
    path = upload.path(await upload.begin(b"abc", complete=False, Upload_Length="6"))
    for headers, body, status in (
        ({"Content_Type": BYTES}, b"x", 415),
        ({"Upload_Complete": "1"}, b"x", 400),
        ({"Upload_Complete": "?1"}, b"x", 400),
        ({"Upload_Length": "7"}, b"x", 400),
        ({}, b"x" * 4, 413),
    ):
        answer = await upload.add(path, 3, body, complete=False, **headers)
        assert answer.status == status, headers
    assert (await upload.ask("PATCH", path, b"x", Upload_Complete="?0", Content_Type=PARTIAL)).status == 400
    assert await upload.offset(path) == 3


async def test_a_complete_upload_takes_nothing_more(app, upload):
    path = upload.path(await upload.begin(b"abc", complete=True))
    answer = await upload.add(path, 3, b"x", complete=False)
    assert (answer.status, answer.json["type"]) == (400, REGISTERED + "completed-upload")
    again = await upload.add(path, 3, complete=True)
    assert (again.status, again.headers["Upload-Complete"]) == (204, "?1")
    assert await ends(app, path, "sealed") == b"abc"
    assert (await upload.ask("DELETE", path)).status == 403


async def test_an_announced_length_that_has_come_completes_the_upload(app, upload):
    path = upload.path(await upload.begin(complete=False, Upload_Length="6"))
    answer = await upload.add(path, 0, b"abcdef", complete=False)
    assert answer.headers["Upload-Complete"] == "?1"
    assert (await upload.add(path, 6, complete=True)).headers["Upload-Complete"] == "?1"
    assert await ends(app, path, "sealed") == b"abcdef"


async def test_a_cancelled_upload_is_gone_for_its_client_and_kept_as_truncated(app, upload):
    path = upload.path(await upload.begin(b"abc", complete=False))
    assert (await upload.ask("DELETE", path)).status == 204
    assert await ends(app, path, "truncated") == b"abc"
    assert (await upload.head(path)).status == 410
    assert (await upload.add(path, 3, b"x", complete=True)).status == 410


async def test_both_protocols_may_continue_one_upload(app, upload):
    tus = Tus(app)
    path = upload.path(await upload.begin(b"abc", complete=False, Upload_Length="9"))
    assert (await tus.patch(path, 3, b"def")).status == 204
    assert (await upload.add(path, 6, b"ghi", complete=True)).status == 201
    assert await ends(app, path, "sealed") == b"abcdefghi"


# -- on the wire ------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module")
async def wire(app):
    opened = []

    async def to():
        opened.append(await Wire.to(app))
        return opened[-1]

    yield to
    for each in opened:
        each.close()


@pytest.mark.parametrize("version", ["6", "8"])
async def test_interim_responses_name_the_upload_and_then_what_is_durable(app, wire, version):
    data = sound(200_000)
    line = await wire()
    sent = {"Upload_Draft_Interop_Version": version, "Content_Type": PCMU, "Upload_Complete": "?1"}
    line.send("POST", Resumable.place, Content_Length=str(len(data)), **sent)
    status, headers, _ = await line.answer()
    assert (status, headers["Upload-Draft-Interop-Version"]) == (104, version)
    location = headers["Location"]
    assert location.startswith("http://vault/v1/ingest/")
    assert headers["Upload-Limit"].startswith("max-size=")
    path = location.removeprefix("http://vault")
    line.write(data[:150_000])
    status, headers, _ = await line.answer()
    # The promise is durability: what is told here survives a crash, so the client may forget it.
    assert (status, headers["Upload-Offset"]) == (104, "150000")
    assert app.vault.ingest.live(recording(path)).durable == 150_000
    assert "Location" not in headers
    line.write(data[150_000:])
    status, headers, body = await line.answer()
    assert (status, headers["Location"], headers["Upload-Complete"]) == (201, location, "?1")
    assert json.loads(body)["bytes"] == len(data)
    assert await ends(app, path, "sealed") == data


@pytest.mark.parametrize("version", [None, "3", "9", "x"])
async def test_without_a_version_spoken_here_there_is_no_interim_response(app, wire, version):
    line = await wire()
    sent = {"Content_Type": PCMU, "Upload_Complete": "?1", "Content_Length": "3"}
    if version is not None:
        sent["Upload_Draft_Interop_Version"] = version
    line.send("POST", Resumable.place, b"abc", **sent)
    status, headers, _ = await line.answer()
    assert (status, headers["Upload-Complete"]) == (201, "?1")


async def test_a_broken_request_keeps_what_came_and_the_next_one_goes_on(app, wire):
    data = sound(50_000)
    upload = Resumable(app)
    line = await wire()
    line.send(
        "POST",
        Resumable.place,
        data[:20_000],
        Upload_Draft_Interop_Version="8",
        Content_Type=PCMU,
        Upload_Complete="?1",
        Content_Length=str(len(data)),
    )
    path = (await line.answer())[1]["Location"].removeprefix("http://vault")
    assert (await line.answer())[1]["Upload-Offset"] == "20000"
    line.close()
    head = await upload.head(path)
    assert (head.headers["Upload-Offset"], head.headers["Upload-Length"]) == ("20000", "50000")
    assert head.headers["Upload-Complete"] == "?0"
    assert (await upload.add(path, 20_000, data[20_000:], complete=True)).status == 201
    assert await ends(app, path, "sealed") == data


async def test_a_new_request_ends_the_one_before_it_at_once(app, wire):
    data = sound(30_000)
    upload = Resumable(app)
    path = upload.path(await upload.begin(complete=False, Upload_Length=str(len(data))))
    line = await wire()
    line.send(
        "PATCH",
        path,
        data[:10_000],
        Upload_Draft_Interop_Version="8",
        Content_Type=PARTIAL,
        Upload_Complete="?1",
        Upload_Offset="0",
        Content_Length=str(len(data)),
    )
    status, headers, _ = await line.answer()
    assert (status, headers["Upload-Offset"]) == (104, "10000")
    assert await upload.offset(path) == 10_000
    assert (await line.answer())[0] == 423
    assert (await upload.add(path, 10_000, data[10_000:], complete=True)).status == 201
    assert await ends(app, path, "sealed") == data


async def test_a_chunked_body_that_passes_the_announced_length_is_cut_before_it(app, wire):
    upload = Resumable(app)
    path = upload.path(await upload.begin(complete=False, Upload_Length="6"))
    line = await wire()
    line.send(
        "PATCH",
        path,
        b"3\r\nabc\r\n",
        Content_Type=PARTIAL,
        Upload_Complete="?0",
        Upload_Offset="0",
        Transfer_Encoding="chunked",
    )
    while await durable(app, path) < 3:
        await asyncio.sleep(0.01)
    line.write(b"5\r\ndefgh\r\n0\r\n\r\n")
    assert (await line.answer())[0] == 413
    assert await upload.offset(path) == 3


async def durable(app, path):
    return app.vault.ingest.live(recording(path)).durable


async def test_a_refused_client_is_counted_and_not_told_to_continue(app, wire):
    line = await wire()
    line.send("POST", f"/v1/ingest/{TENANTS[1]}/tus", Expect="100-continue", Upload_Complete="?1", Content_Length="9")
    assert (await line.answer())[0] == 404
    metrics = await app.ask("GET", "/metrics", Role.AUDITOR)
    assert b'callvault_ingest_refused_total{reason="not_found"} 1.0' in metrics.body
    line = await wire()
    line.send(
        "POST",
        Resumable.place,
        Expect="100-continue",
        Content_Length="3",
        Tus_Resumable="1.0.0",
        Upload_Length="3",
        Content_Type=BYTES,
        Upload_Metadata=metadata(filetype=PCMU),
    )
    assert (await line.answer())[0] == 100
    line.write(b"abc")
    assert (await line.answer())[1]["Upload-Offset"] == "3"
