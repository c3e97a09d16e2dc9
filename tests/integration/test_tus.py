"""tus 1.0 case by case: the protocol's own examples (tus.io/protocols/resumable-upload) and tusd's handler tests."""

import asyncio
import base64
import hashlib
import io
import itertools
import random
from email.utils import parsedate_to_datetime

import pytest
import pytest_asyncio

from tests.helpers.app import PCMU, SETTINGS, TENANTS, out_of_reach, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.tenants import offboard
from tests.helpers.uploads import BYTES, Tus, ends, metadata, recording
from vault.ids import TenantId
from vault.model import Role
from vault.protocol.live.events import Audio, Ended, Started
from vault.services.ingest.live import Feed

EXTENSIONS = {"creation", "creation-with-upload", "creation-defer-length", "checksum", "expiration", "termination"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app():
    with memory_directory() as base:
        async with running(base) as each:
            yield each


@pytest.fixture
def tus(app):
    return Tus(app)


async def newest(app):
    return (await app.ask("GET", "/v1/recordings?limit=1", Role.COMPLIANCE)).json["recordings"]


def checksum(data, algorithm="sha1"):
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


# -- discovery --------------------------------------------------------------------------------------------------


async def test_options_tell_version_extensions_algorithms_and_the_limit(app, tus):
    answer = await tus.ask("OPTIONS", tus.place)
    assert answer.status == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert set(answer.headers["Tus-Extension"].split(",")) == EXTENSIONS
    assert answer.headers["Tus-Checksum-Algorithm"].split(",") == ["sha1", "sha256"]
    assert answer.headers["Tus-Max-Size"] == str(app.config.server.max_recording_bytes)
    assert "application/partial-upload" in answer.headers["Accept-Patch"]


async def test_another_version_is_412_and_names_the_one_spoken(app, tus):
    path = await tus.made(10)
    requests = (("POST", tus.place), ("PUT", tus.place), ("PATCH", path), ("DELETE", path), ("HEAD", path))
    requests += tuple(("POST", path, each) for each in ("PATCH", "DELETE", "HEAD"))
    for version, (method, where, *meant) in itertools.product((None, "0.2.2", "1.0"), requests):
        sent = {"Upload-Length": "10", "Content-Type": BYTES, "Upload-Offset": "0"}
        if version is not None:
            sent["Tus-Resumable"] = version
        elif "HEAD" in (method, *meant) or method == "PUT":
            continue  # who only asks need not say it, and PUT is the other protocol's
        if meant:
            sent["X-HTTP-Method-Override"] = meant[0]
        answer = await app.ask(method, where, Role.RECORDER, data=b"x", headers=sent)
        assert answer.status == 412, (version, method, meant)
        assert method == "HEAD" or answer.problem == "unsupported_version"
        assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
    assert await tus.offset(path) == 0


# -- creation ---------------------------------------------------------------------------------------------------


async def test_create_answers_an_absolute_location_and_when_it_expires(app, tus):
    answer = await tus.create(300)
    assert answer.status == 201
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    left = parsedate_to_datetime(answer.headers["Upload-Expires"]) - app.clock.now()
    assert 3590 < left.total_seconds() <= 3600
    path = tus.path(answer)
    head = await tus.head(path)
    assert (head.status, head.headers["Upload-Offset"], head.headers["Upload-Length"]) == (200, "0", "300")
    assert head.headers["Cache-Control"] == "no-store"
    assert head.headers["Tus-Resumable"] == "1.0.0"
    assert "Upload-Defer-Length" not in head.headers


async def test_behind_a_proxy_the_location_begins_with_the_public_address():
    with memory_directory() as base:
        server = {**SETTINGS["server"], "public_url": "https://vault.example.org"}
        async with running(base, server=server) as proxied:
            answer = await Tus(proxied).create(10)
    assert answer.headers["Location"].startswith(f"https://vault.example.org/v1/ingest/{TENANTS[0]}/tus/rec_")


REFUSED = [
    ({"Upload-Length": "-1"}, 400),
    ({"Upload-Length": "1.5"}, 400),
    ({"Upload-Length": "10", "Upload-Defer-Length": "1"}, 400),
    ({}, 400),
    ({"Upload-Defer-Length": "2"}, 400),
    ({"Upload-Length": "9999999999999"}, 413),
    ({"Upload-Length": "9" * 20}, 413),
    ({"Upload-Length": "1" + "0" * 5_000}, 413),
    ({"Upload-Length": "0" * 5_000}, 422),
    ({"Upload-Length": "0"}, 422),
    ({"Upload-Length": "10", "Upload-Concat": "partial"}, 400),
    ({"Upload-Length": "10", "Upload-Metadata": "filetype not-base64!"}, 415),
    ({"Upload-Length": "10", "Upload-Metadata": ""}, 415),
    ({"Upload-Length": "10", "Upload-Metadata": metadata(filetype="video/mp4")}, 415),
    ({"Upload-Length": "10", "Upload-Metadata": metadata(filetype=b"\xff")}, 422),
]


async def test_a_creation_that_is_not_right_is_refused_and_creates_nothing(app, tus):
    known = await newest(app)
    for headers, status in REFUSED:
        sent = {"Upload-Metadata": metadata(filetype=PCMU), **tus.version, **headers}
        answer = await app.ask("POST", tus.place, Role.RECORDER, headers=sent)
        assert (answer.status, answer.headers["Tus-Resumable"]) == (status, "1.0.0"), headers
        assert answer.problem
    assert await newest(app) == known


async def test_what_the_recorder_tells_of_the_call_becomes_its_facts(app, tus):
    told = {
        "call_key": "call-7",
        "from": "+441632960001",
        "to": "+441632960100",
        "direction": "inbound",
        "started": app.clock.now().isoformat(),
        "tags": "admissions,open-day",
        "relativePath": None,
        "custom": b"\xff\x00",
    }
    path = await tus.made(4, b"call", meta=told)
    assert await ends(app, path, "sealed") == b"call"
    shown = (await app.ask("GET", f"/v1/recordings/{recording(path)}", Role.COMPLIANCE)).json
    assert shown["call"]["call_key"] == "call-7"
    assert shown["call"]["caller"] == "+441632960001"
    assert shown["call"]["tags"] == ["admissions", "open-day"]


async def test_the_type_of_the_audio_comes_from_filetype_or_the_files_name(app, tus):
    for meta, container in (
        ({"filetype": "audio/webm;codecs=opus", "filename": "note"}, "webm"),
        ({"filetype": "application/octet-stream", "filename": "a/b/call.MP3"}, "mp3"),
        ({"filetype": "", "filename": "C:\\calls\\my call (1).wav"}, "wav"),
    ):
        path = await tus.made(10, meta=meta)
        assert app.vault.ingest.live(recording(path)).recording.media.container == container


async def test_without_a_type_the_first_bytes_tell_it(app, tus):
    data = b"OggS" + sound(500)
    path = await tus.made(len(data), data, meta={"filetype": "", "filename": "blob"})
    assert await ends(app, path, "sealed") == data


async def test_files_of_one_name_are_recordings_of_their_own(app, tus):
    paths = [await tus.made(10, meta={"filename": "audio.webm"}) for _ in range(3)]
    assert len(set(paths)) == 3
    keys = {app.vault.ingest.live(recording(path)).call_key for path in paths}
    assert "audio.webm" in keys
    assert all(key.startswith("audio.webm") for key in keys)


async def test_a_creation_repeated_for_a_named_call_leads_to_its_unfinished_upload(app, tus):
    data = sound(40)
    path = await tus.made(40, meta={"call_key": "call-1"})
    assert await tus.made(40, meta={"call_key": "call-1"}) == path
    assert (await tus.patch(path, 0, data[:15])).status == 204
    again = await tus.create(40, data, meta={"call_key": "call-1"})
    assert (tus.path(again), again.headers["Upload-Offset"]) == (path, "15")
    assert await tus.made(50, meta={"call_key": "call-1"}) != path
    assert (await tus.patch(path, 15, data[15:])).status == 204
    assert await ends(app, path, "sealed") == data
    assert await tus.made(40, meta={"call_key": "call-1"}) != path


async def test_a_live_call_of_the_same_name_is_not_mixed_into_an_upload(app, tus):
    path = await tus.made(9, b"abc", meta={"call_key": "twice"})
    vault = app.vault
    actor = await vault.access.authenticate(app.token(Role.RECORDER))
    feed = Feed(vault.feeds, tenant=TenantId(TENANTS[0]), actor=actor, replaced=lambda: None, silent_seconds=5)
    media = vault.ingest.live(recording(path)).recording.media
    await feed.begin(Started(call_key="twice", media=media))
    await feed.apply(Audio(b"live"))
    await feed.apply(Ended(clean=True, reason="bye"))
    assert feed.session.call_key == "twice~2"
    assert (await tus.patch(path, 3, b"defghi")).status == 204
    assert await ends(app, path, "sealed") == b"abcdefghi"


async def test_a_tenant_that_has_left_gets_no_uploads():
    with memory_directory() as base:
        async with running(base) as left:
            tus = Tus(left)
            path = await tus.made(6, b"abc")
            await offboard(left)
            left.clock.advance(days=1)
            assert (await tus.create(10)).status == 409
            # What began before goes on.
            assert (await tus.patch(path, 3, b"def")).status == 204


async def test_a_tenant_that_is_not_there_is_404(tus):
    assert (await tus.ask("POST", "/v1/ingest/nobody/tus", Upload_Length="1")).status == 404


async def test_nobody_but_a_recorder_of_the_tenant_may_touch_an_upload(app, tus):
    path = await tus.made(10)
    for who in (Role.COMPLIANCE, Role.OPERATOR, None):
        other = Tus(app, who)
        for answer in (
            await other.create(10),
            await other.patch(path, 0, b"x"),
            await other.head(path),
            await other.ask("DELETE", path),
            await other.ask("OPTIONS", tus.place),
        ):
            assert answer.status == (401 if who is None else 403)
    stranger = Tus(app, app.token(Role.RECORDER, TENANTS[1]))
    assert (await stranger.head(path)).status == 404
    assert (await stranger.head(path.replace(TENANTS[0], TENANTS[1]))).status == 404
    assert await tus.offset(path) == 0


# -- creation with upload ---------------------------------------------------------------------------------------


async def test_a_creation_may_carry_the_first_bytes_or_all(app, tus):
    data = sound(300_000)
    answer = await tus.create(len(data), data[:100_000])
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, "100000")
    path = tus.path(answer)
    answer = await tus.patch(path, 100_000, data[100_000:])
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "300000")
    assert "Upload-Expires" not in answer.headers
    assert await ends(app, path, "sealed") == data


async def test_more_than_announced_is_413_and_none_of_it_is_kept(app, tus):
    known = await newest(app)
    assert (await tus.create(10, b"x" * 11)).status == 413
    assert await newest(app) == known
    path = await tus.made(10)
    assert (await tus.patch(path, 0, b"x" * 11)).status == 413
    assert await tus.offset(path) == 0


async def test_a_body_of_another_type_is_not_part_of_the_upload(tus):
    path = await tus.made(10, b"whatever", Content_Type="application/fido-data")
    assert await tus.offset(path) == 0


# -- PATCH and HEAD ---------------------------------------------------------------------------------------------


async def test_chunks_add_up_and_the_last_one_seals(app, tus):
    data = sound(10_000)
    path = await tus.made(len(data), meta={"call_key": "chunks"})
    for at in range(0, len(data), 3_000):
        answer = await tus.patch(path, at, data[at : at + 3_000])
        assert answer.status == 204
        assert answer.headers["Upload-Offset"] == str(min(at + 3_000, len(data)))
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert ("Upload-Expires" in answer.headers) is (at + 3_000 < len(data))
    assert await ends(app, path, "sealed") == data
    head = await tus.head(path)
    assert head.headers["Upload-Offset"] == head.headers["Upload-Length"] == str(len(data))


async def test_a_finished_upload_is_told_as_such_and_takes_nothing_more(app, tus):
    path = await tus.made(4, b"done")
    for _ in range(2):
        head = await tus.head(path)
        assert (head.status, head.headers["Upload-Offset"], head.headers["Upload-Length"]) == (200, "4", "4")
        again = await tus.patch(path, 4)
        assert (again.status, again.headers["Upload-Offset"]) == (204, "4")
        assert (await tus.patch(path, 4, b"more")).status == 400
        assert (await tus.patch(path, 0, b"done")).status == 409
        assert await ends(app, path, "sealed") == b"done"


async def test_a_patch_that_is_not_right_is_refused_and_not_one_byte_of_it_kept(tus):
    path = await tus.made(10, b"abc")
    for offset in (5, 0):
        answer = await tus.patch(path, offset, b"xyz")
        assert (answer.status, answer.headers["Upload-Offset"]) == (409, "3")
    for offset in ("-5", "", "five", "1e2"):
        assert (await tus.patch(path, offset, b"x")).status == 400
    for kind in ("application/fido-data", "application/octet-stream"):
        assert (await tus.patch(path, 3, b"x", Content_Type=kind)).status == 415
    for value, status in (("crc32 AAAA", 400), ("", 400), ("sha1 short", 460), ("sha1", 460), ("sha1 !!!", 460)):
        assert (await tus.patch(path, 3, b"x", Upload_Checksum=value)).status == status, value
    for length in ("7", "2", "x"):
        assert (await tus.patch(path, 3, b"d", Upload_Length=length)).status == 400
    assert (await tus.patch(path, 3, b"d", Upload_Length="9" * 30)).status == 413
    assert (await tus.patch(path, "9" * 30, b"d")).status == 409
    assert (await tus.patch(path, 3, b"x" * 8)).status == 413
    assert await tus.offset(path) == 3
    assert (await tus.patch(path, 3, b"d", Upload_Length="10")).status == 204


async def test_an_upload_that_is_not_there_is_404(tus):
    for upload in ("rec_" + "0" * 32, "nothing", "hold_" + "0" * 32):
        path = f"{tus.place}/{upload}"
        for answer in (await tus.head(path), await tus.patch(path, 0, b"x"), await tus.ask("DELETE", path)):
            assert answer.status == 404
            assert "Upload-Offset" not in answer.headers


async def test_a_recording_of_another_dialect_is_no_upload(app, tus):
    session = None

    async def body():
        nonlocal session
        yield b"live" * 10
        while session is None:
            await asyncio.sleep(0.01)
            session = app.vault.ingest.live_call(TENANTS[0], "live")
        assert (await tus.patch(f"{tus.place}/{session.recording.id}", 4, b"x")).status == 404

    assert await app.upload("live", body())
    assert session is not None


async def test_a_client_with_only_post_may_say_which_method_it_means(app, tus):
    path, other = await tus.made(4), await tus.made(4)
    sent = {"Upload_Offset": "0", "Content_Type": BYTES}
    assert (await tus.ask("POST", path, b"call", X_HTTP_Method_Override="PATCH", **sent)).status == 204
    assert await ends(app, path, "sealed") == b"call"
    assert (await tus.ask("POST", path, X_HTTP_Method_Override="HEAD")).headers["Upload-Offset"] == "4"
    assert (await tus.ask("POST", other, X_HTTP_Method_Override="DELETE")).status == 204
    assert (await tus.head(other)).status == 410
    for method in ("BREW", "", "POST"):
        assert (await tus.ask("POST", path, X_HTTP_Method_Override=method)).status == 405


# -- length told later ------------------------------------------------------------------------------------------


async def test_a_deferred_length_is_told_with_the_last_chunk(app, tus):
    path = await tus.made(meta={"call_key": "deferred"})
    head = await tus.head(path)
    assert head.headers["Upload-Defer-Length"] == "1"
    assert "Upload-Length" not in head.headers
    assert (await tus.patch(path, 0, b"abc")).status == 204
    assert (await tus.patch(path, 3, b"def", Upload_Length="6")).status == 204
    assert await ends(app, path, "sealed") == b"abcdef"


async def test_a_deferred_length_is_told_before_or_after_the_last_byte(app, tus):
    before, after = await tus.made(), await tus.made()
    assert (await tus.patch(before, 0, Upload_Length="6")).status == 204
    assert (await tus.head(before)).headers["Upload-Length"] == "6"
    assert (await tus.patch(before, 0, b"abcdef")).status == 204
    assert (await tus.patch(after, 0, b"abcdef")).status == 204
    assert (await tus.patch(after, 6, Upload_Length="6")).status == 204
    for path in (before, after):
        assert await ends(app, path, "sealed") == b"abcdef"


async def test_a_deferred_length_that_a_restart_would_forget_is_not_acknowledged(app, tus):
    path = await tus.made(data=b"abc")

    with out_of_reach(app.vault.catalog, "revise_facts"):
        assert (await tus.patch(path, 3, Upload_Length="6")).status == 503
    assert (await tus.patch(path, 3, b"def", Upload_Length="6")).status == 204
    assert await ends(app, path, "sealed") == b"abcdef"


async def test_a_deferred_length_below_what_came_is_refused(tus):
    path = await tus.made(data=b"abcdef")
    assert (await tus.patch(path, 6, b"g", Upload_Length="5")).status == 400
    assert await tus.offset(path) == 6


async def test_a_deferred_upload_whose_length_nobody_told_ends_as_truncated():
    with memory_directory() as base:
        server = {**SETTINGS["server"], "upload_grace": "300ms"}
        async with running(base, server=server) as brief:
            tus = Tus(brief)
            path = await tus.made(data=b"abc")
            assert await ends(brief, path, "truncated") == b"abc"
            assert (await tus.head(path)).status == 410
            assert (await tus.patch(path, 3, b"d")).status == 410


# -- checksum ---------------------------------------------------------------------------------------------------


async def test_bytes_with_the_right_checksum_are_kept(app, tus):
    data = sound(600_000)
    path = await tus.made(len(data), data[:300_000], Upload_Checksum=checksum(data[:300_000], "sha256"))
    answer = await tus.patch(path, 300_000, data[300_000:], Upload_Checksum=checksum(data[300_000:], "sha1"))
    assert answer.status == 204
    assert await ends(app, path, "sealed") == data


async def test_of_bytes_with_a_wrong_checksum_not_one_is_kept(app, tus):
    data = sound(500_000)
    known = await newest(app)
    assert (await tus.create(len(data), data, Upload_Checksum=checksum(b""))).status == 460
    assert await newest(app) == known
    path = await tus.made(len(data), data[:100])
    answer = await tus.patch(path, 100, data[100:], Upload_Checksum=checksum(data))
    assert (answer.status, answer.problem) == (460, "checksum_mismatch")
    assert await tus.offset(path) == 100
    assert app.vault.ingest.live(recording(path)).appended == 100


async def test_more_than_can_be_checked_at_once_is_413_with_a_hint(tus):
    data = bytes((8 << 20) + 1)

    async def pieces():
        for at in range(0, len(data), 1 << 20):
            yield data[at : at + (1 << 20)]

    path = await tus.made(len(data))
    for body in (pieces(), io.BytesIO(data)):
        answer = await tus.patch(path, 0, body, Upload_Checksum=checksum(data))
        assert answer.status == 413
        assert "chunk size" in answer.json["hint"]
    assert await tus.offset(path) == 0


# -- termination ------------------------------------------------------------------------------------------------


async def test_a_terminated_upload_ends_as_truncated_and_is_gone_for_its_client(app, tus):
    path = await tus.made(10, b"abc")
    assert (await tus.ask("DELETE", path)).status == 204
    assert (await tus.head(path)).status == 410
    assert await ends(app, path, "truncated") == b"abc"
    for answer in (await tus.head(path), await tus.patch(path, 3, b"x"), await tus.ask("DELETE", path)):
        assert (answer.status, answer.headers["Tus-Resumable"]) == (410, "1.0.0")
    shown = (await app.ask("GET", f"/v1/recordings/{recording(path)}", Role.COMPLIANCE)).json
    assert shown["state_reason"] == "terminated"
    assert recording(path) in {entry["target"] for entry in await app.audit("recording.terminated")}


async def test_a_finished_upload_cannot_be_terminated(app, tus):
    path = await tus.made(4, b"done")
    assert (await tus.ask("DELETE", path)).status == 403
    assert await ends(app, path, "sealed") == b"done"
    assert (await tus.ask("DELETE", path)).status == 403


async def test_an_upload_under_hold_cannot_be_terminated(app, tus):
    path = await tus.made(6, b"abc")
    assert (await app.hold(recording(path))).status == 201
    assert (await tus.ask("DELETE", path)).status == 403
    assert (await tus.patch(path, 3, b"def")).status == 204
    assert await ends(app, path, "sealed") == b"abcdef"


# -- two requests at once ---------------------------------------------------------------------------------------


class Slow:
    """A PATCH whose body comes as the test says it."""

    def __init__(self, tus, path, offset, **headers):
        self._pieces = asyncio.Queue()
        self.answer = asyncio.create_task(tus.patch(path, offset, self._body(), **headers))

    async def _body(self):
        while (piece := await self._pieces.get()) is not None:
            yield piece

    def say(self, piece):
        self._pieces.put_nowait(piece)


async def taken(app, path, size):
    session = app.vault.ingest.live(recording(path))
    for _ in range(200):
        if session.durable == size:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{session.durable} durable bytes, not {size}")


async def test_while_one_request_writes_the_next_is_locked_out(app, tus):
    path = await tus.made(6)
    slow = Slow(tus, path, 0)
    slow.say(b"abc")
    await taken(app, path, 3)
    assert (await tus.patch(path, 3, b"x")).status == 423
    assert (await tus.head(path)).status == 423
    slow.say(b"def")
    slow.say(None)
    assert (await slow.answer).status == 204
    assert await ends(app, path, "sealed") == b"abcdef"


async def test_a_request_that_has_gone_silent_gives_way(app, tus):
    path = await tus.made(6)
    slow = Slow(tus, path, 0)
    slow.say(b"abc")
    await taken(app, path, 3)
    app.vault.ingest.live(recording(path)).feed.patience = 0.0  # as if two seconds had gone by
    assert await tus.offset(path) == 3
    assert (await slow.answer).status == 423
    assert (await tus.patch(path, 3, b"def")).status == 204
    assert await ends(app, path, "sealed") == b"abcdef"


async def test_terminating_ends_the_request_that_writes(app, tus):
    path = await tus.made(6)
    slow = Slow(tus, path, 0)
    slow.say(b"abc")
    await taken(app, path, 3)
    assert (await tus.ask("DELETE", path)).status == 204
    assert (await slow.answer).status == 423
    assert await ends(app, path, "truncated") == b"abc"


async def test_what_is_counted_is_what_came(app, tus):
    counter = app.vault.metrics.ingest_bytes.labels("tus")
    before = counter._value.get()
    path = await tus.made(6, b"abc")
    await tus.patch(path, 3, b"defg")
    await tus.patch(path, 3, b"def")
    assert counter._value.get() == before + 6


# -- any sequence -----------------------------------------------------------------------------------------------


async def test_after_any_sequence_of_requests_the_offset_is_that_of_the_bytes_accepted(app, tus):
    for seed in range(25):
        chance = random.Random(seed)
        data = chance.randbytes(2_000)
        deferred = chance.random() < 0.4
        path = await tus.made(None if deferred else len(data))
        kept, stage = 0, "open"
        for _ in range(12):
            size = chance.randint(0, min(900, len(data) - kept))
            piece = data[kept : kept + size]
            last = kept + size == len(data)
            match chance.choice(["good", "good", "checked", "damaged", "displaced", "beyond", "terminate", "other"]):
                case "good" | "checked" as how:
                    headers = {"Upload_Length": "2000"} if deferred and last else {}
                    if how == "checked":
                        headers["Upload_Checksum"] = checksum(piece)
                    answer = await tus.patch(path, kept, piece, **headers)
                    assert answer.status == (204 if stage != "gone" else 410)
                    if stage == "open":
                        kept += size
                        stage = "complete" if last else stage
                case "damaged":
                    answer = await tus.patch(path, kept, piece, Upload_Checksum=checksum(piece + b"x"))
                    assert answer.status == 460
                case "displaced":
                    answer = await tus.patch(path, kept + 1, piece)
                    assert answer.status == (409 if stage != "gone" else 410)
                case "beyond" if not deferred:
                    answer = await tus.patch(path, kept, data[kept:] + b"x")
                    assert answer.status == {"open": 413, "complete": 400, "gone": 410}[stage]
                case "terminate" if chance.random() < 0.2:
                    answer = await tus.ask("DELETE", path)
                    assert answer.status == {"open": 204, "complete": 403, "gone": 410}[stage]
                    stage = "gone" if stage == "open" else stage
            head = await tus.head(path)
            assert head.status == (200 if stage != "gone" else 410)
            assert stage == "gone" or head.headers["Upload-Offset"] == str(kept), seed
        if stage != "open":
            assert await ends(app, path, "sealed" if stage == "complete" else "truncated") == data[:kept]


async def test_an_upload_whose_every_byte_came_is_sealed_though_nobody_asks_again():
    # As a server killed between the last bytes and the end leaves it.
    with memory_directory() as base:
        server = {**SETTINGS["server"], "upload_grace": "300ms"}
        async with running(base, server=server) as brief:
            path = await Tus(brief).made(6, b"abc")
            session = brief.vault.ingest.live(recording(path))
            await brief.vault.ingest.attach(session, offset=3)
            await brief.vault.ingest.write(session, b"def")
            brief.vault.ingest.detach(session)
            assert await ends(brief, path, "sealed") == b"abcdef"
            assert (await Tus(brief).head(path)).status == 200


async def test_what_a_pause_drops_counts_towards_the_announced_length(app, tus):
    path = await tus.made(9, b"abc", meta={"call_key": "paused"})
    place = f"/v1/ingest/{TENANTS[0]}/paused"
    assert (await app.ask("POST", f"{place}/pause", Role.RECORDER)).status == 200
    answer = await tus.patch(path, 3, b"1234")
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "7")
    assert (await app.ask("POST", f"{place}/resume", Role.RECORDER)).status == 200
    assert await tus.offset(path) == 7
    assert (await tus.patch(path, 7, b"xyz")).status == 413
    answer = await tus.patch(path, 7, b"hi")
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "9")
    assert await ends(app, path, "sealed") == b"abchi"
    assert await tus.offset(path) == 9
