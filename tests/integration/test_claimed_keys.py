"""A call key that another token claimed first: whose call it is then, until when it is kept, and what is said of it."""

import asyncio
import base64
from datetime import timedelta

import pytest
import pytest_asyncio

from tests.helpers.app import PCMU, SETTINGS, TENANTS, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.s3clients import Recorder
from tests.helpers.stated_starts import WAV_HEAD, near, newest, rtpengine
from tests.helpers.streams import token_id
from tests.helpers.uploads import BYTES, Resumable, Tus
from vault.model import Role
from vault.protocol.uploads.multipart import notification

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENANT = TENANTS[0]
AUDIO = sound(1_600)
PERIOD, BACKDATING = timedelta(days=10), timedelta(days=7)
LONG_AGO = "2001-01-01T00:00:00Z"
CALLER, OTHER = "+442079460123", "+442070000666"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app():
    with memory_directory() as base:
        async with running(base, retention={**SETTINGS["retention"], "floor": "1d", "backdating": "7d"}) as each:
            yield each


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def importing(app):
    """The token of somebody who may state any start."""
    until = (app.clock.now() + timedelta(days=30)).isoformat()
    wanted = {"name": "archive", "role": "recorder", "tenant": TENANT, "imports_until": until}
    return (await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=wanted)).json["token"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standby(app):
    """The token of a second recorder, which takes over from the first."""
    return await app.second_person(Role.RECORDER)


async def put(app, key, data=AUDIO, who=Role.RECORDER, **headers):
    sent = {"Content-Type": PCMU, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await app.ask("PUT", f"/v1/ingest/{TENANT}/{key}", who, data=data, headers=sent)


async def claim(app, key, who, first=AUDIO[:1], **headers):
    """Begin a call and leave it; return its recording."""
    answer = await put(app, key, first, who, Content_Range=f"bytes 0-{len(first) - 1}/*", **headers)
    assert answer.status == 202, answer.body
    return answer.json["id"]


async def whole(app, key):
    answer = await put(app, key)
    assert answer.status in (200, 201), answer.body
    return answer.json["id"]


async def in_pieces(app, key):
    first = await put(app, key, AUDIO[:800], Content_Range=f"bytes 0-799/{len(AUDIO)}")
    assert first.status == 202, first.body
    head = await app.ask("HEAD", f"/v1/ingest/{TENANT}/{key}", Role.RECORDER)
    assert (head.headers["Recording-Id"], head.headers["Upload-Offset"]) == (first.json["id"], "800")
    rest = await put(app, key, AUDIO[800:], Upload_Offset="800")
    assert (rest.status, rest.json["id"]) == (201, first.json["id"])
    return first.json["id"]


async def appended(app, key):
    """Send as GStreamer does: pieces, the first without a place."""
    first = await put(app, f"{key}?append", AUDIO[:800])
    assert first.status == 202, first.body
    for start, end in ((800, 1_200), (1_200, len(AUDIO))):
        place = f"bytes {start}-{end - 1}/{len(AUDIO) if end == len(AUDIO) else '*'}"
        rest = await put(app, f"{key}?append", AUDIO[start:end], Content_Range=place)
        assert rest.json["id"] == first.json["id"]
    return first.json["id"]


async def tus(app, key):
    client = Tus(app)
    path = await client.made(len(AUDIO), meta={"call_key": key})
    assert (await client.patch(path, 0, AUDIO)).status == 204
    return path.rpartition("/")[2]


async def s3(app, key):
    client = Recorder.of(app.url, app.token(Role.RECORDER)).boto()
    await asyncio.to_thread(client.put_object, Bucket=TENANT, Key=key, Body=AUDIO, ContentType=PCMU)
    return await newest(app)


async def live(app, key):
    said = {"event": "start", "streamSid": "MZ1", "sequenceNumber": "1"}
    form = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    ids = {"streamSid": "MZ1", "accountSid": "AC1", "callSid": "CA1"}
    start = {**said, "start": {**ids, "tracks": ["inbound"], "customParameters": {}, "mediaFormat": form}}
    headers = {"Authorization": "Bearer " + app.token(Role.RECORDER)}
    async with app.client.ws_connect(f"/v1/ingest/{TENANT}/ws?call_key={key}", headers=headers) as line:
        await line.send_json({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        await line.send_json(start)
        for number in range(10):
            piece = AUDIO[160 * number : 160 * (number + 1)]
            payload = {"track": "inbound", "chunk": str(number + 1), "timestamp": str(20 * number)}
            payload["payload"] = base64.b64encode(piece).decode()
            await line.send_json({"event": "media", "sequenceNumber": str(number + 2), "media": payload, **ids})
        await line.send_json({"event": "stop", "sequenceNumber": "12", "streamSid": "MZ1", "stop": ids})
        async with asyncio.timeout(5):
            async for _ in line:
                pass
    return await newest(app)


async def row(app, recording):
    """Return the recording's row, once it is sealed."""
    async with asyncio.timeout(5):
        while (found := await app.vault.catalog.recording(recording)).state == "open":
            await asyncio.sleep(0.01)
    return found


async def kept(app, recording):
    """Return for how long a recording is kept, whether it has ended or not."""
    found = await app.vault.catalog.recording(recording)
    return found.retain_until - found.created_at


@pytest.mark.parametrize("send", [whole, in_pieces, appended, s3, live])
async def test_a_call_whose_key_was_claimed_with_an_old_start_is_kept_as_long_as_any(app, importing, standby, send):
    for name, who, life in (("importing", importing, timedelta(days=1)), ("plain", standby, PERIOD - BACKDATING)):
        key = f"{send.__name__}-{name}"
        claimed = await claim(app, key, who, Call_Started=LONG_AGO)
        assert await kept(app, claimed) == life
        recording = await send(app, key)
        assert recording != claimed
        found = await row(app, recording)
        assert (found.retain_until - found.created_at, found.stored_bytes) == (PERIOD, len(AUDIO))
        assert (await app.play(recording)).body == AUDIO


async def test_an_upload_of_a_key_claimed_over_tus_has_an_address_of_its_own(app, importing):
    for maker in (Tus, Resumable):
        key = f"tus-{maker.__name__}"
        claimed = await Tus(app, importing).made(len(AUDIO), meta={"call_key": key, "started": LONG_AGO})
        # Who has left is no obstacle either.
        recording = await tus(app, key)
        assert not claimed.endswith(recording)
        found = await row(app, recording)
        assert (found.retain_until - found.created_at, found.stored_bytes) == (PERIOD, len(AUDIO))


async def test_a_claim_outlives_its_token_and_takes_nothing_from_the_call(app):
    until = (app.clock.now() + timedelta(days=3)).isoformat()
    wanted = {"name": "gone", "role": "recorder", "tenant": TENANT, "imports_until": until}
    token = (await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=wanted)).json["token"]
    claimed = await Tus(app, token).made(meta={"call_key": "revoked", "started": LONG_AGO})
    await app.ask("DELETE", f"/v1/tokens/{token_id(token)}", Role.OPERATOR)
    recording = (await Tus(app).made(meta={"call_key": "revoked"})).rpartition("/")[2]
    assert not claimed.endswith(recording)
    assert await kept(app, recording) == PERIOD


async def test_a_file_whose_key_was_claimed_with_an_old_start_is_kept_as_long_as_any(app, importing):
    key = notification({"X-Recording-Call-ID": "rtp", "X-Recording-File-Name": "a.wav"}).call_key
    claimed = await claim(app, key, importing, WAV_HEAD[:1], Content_Type="audio/wav", Call_Started=LONG_AGO)
    now = app.clock.now()
    recording = await rtpengine(app, "rtp", now)
    assert recording != claimed
    assert near((await row(app, recording)).retain_until, now + PERIOD)


async def test_a_recording_that_ended_under_an_old_start_stands_for_no_other_call(app, importing):
    for send in (whole, s3):
        key = f"ended-{send.__name__}"
        answer = await put(app, key, AUDIO, importing, Call_Started=LONG_AGO)
        assert answer.status == 201
        recording = await send(app, key)
        assert recording != answer.json["id"]
        assert await kept(app, recording) == PERIOD
        assert await send(app, key) == recording  # which is repeated as any


async def test_another_recorder_that_states_the_same_or_nothing_takes_over(app, standby):
    start = (app.clock.now() - timedelta(minutes=3)).isoformat()
    for number, stated in enumerate(({}, {"Call_Started": start})):
        begun = await claim(app, f"failover-{number}", Role.RECORDER, AUDIO[:800], Call_From=CALLER, **stated)
        app.clock.advance(seconds=20)
        head = await app.ask("HEAD", f"/v1/ingest/{TENANT}/failover-{number}", standby)
        assert (head.headers["Recording-Id"], head.headers["Upload-Offset"]) == (begun, "800")
        rest = await put(app, f"failover-{number}", AUDIO[800:], standby, Upload_Offset="800", **stated)
        assert (rest.status, rest.json["id"]) == (201, begun)
    for number, stated in enumerate(({}, {"started": start})):
        meta = {"call_key": f"failover-tus-{number}", **stated}
        made = await Tus(app).made(len(AUDIO), meta=meta)
        assert await Tus(app, standby).made(len(AUDIO), meta=meta) == made


async def test_who_states_a_later_start_than_the_one_that_began_is_kept_by_it(app, standby):
    begun = await claim(app, "later", standby)
    app.clock.advance(minutes=1)
    now = app.clock.now()
    answer = await put(app, "later", AUDIO, Call_Started=now.isoformat())
    assert (answer.status, answer.json["id"] != begun) == (201, True)
    assert near((await row(app, answer.json["id"])).retain_until, now + PERIOD)


async def test_a_claim_that_is_held_open_for_longer_than_any_call_takes_nothing_from_it(app, standby):
    client = Tus(app, standby)
    made = await client.made(len(AUDIO), meta={"call_key": "held-open"})
    for _ in range(6):
        app.clock.advance(minutes=50)
        assert (await client.head(made)).status == 200
    recording = (await Tus(app).made(len(AUDIO), meta={"call_key": "held-open"})).rpartition("/")[2]
    assert not made.endswith(recording)
    assert await kept(app, recording) == PERIOD


async def test_other_parties_than_those_of_the_one_that_began_are_another_call(app, standby):
    begun = await claim(app, "parties", standby, Call_From=OTHER)
    answer = await put(app, "parties", Call_From=CALLER)
    assert (answer.status, answer.json["id"] != begun) == (201, True)
    shown = (await app.ask("GET", f"/v1/recordings/{answer.json['id']}")).json
    assert shown["call"]["caller"] == CALLER


async def test_what_is_stated_by_who_takes_over_is_kept_with_the_call(app, standby):
    begun = await claim(app, "added", standby)
    answer = await put(app, "added", Call_From=CALLER, Call_Tags="sales")
    assert (answer.status, answer.json["id"]) == (201, begun)
    shown = (await app.ask("GET", f"/v1/recordings/{begun}")).json
    assert (shown["call"]["caller"], shown["call"]["tags"]) == (CALLER, ["sales"])


async def test_audio_that_is_declared_to_be_something_else_is_not_joined(app, standby):
    for number, (who, kind) in enumerate(((standby, "audio/wav"), (standby, None), (Role.RECORDER, "audio/wav"))):
        begun = await claim(app, f"kind-{number}", who, b"R")
        wav = WAV_HEAD + AUDIO
        headers = {"Content-Type": kind} if kind else {"Content-Type": BYTES.replace("offset+", "")}
        answer = await app.ask("PUT", f"/v1/ingest/{TENANT}/kind-{number}", Role.RECORDER, data=wav, headers=headers)
        assert (answer.status, answer.json["id"] != begun) == (201, True), answer.body
        assert (await row(app, answer.json["id"])).media.container == "wav"


async def test_a_recorder_pauses_and_flags_its_own_call_of_those_with_its_key(app, importing):
    claimed = await claim(app, "paused", importing, Call_Started=LONG_AGO)
    begun = await claim(app, "paused", Role.RECORDER, AUDIO[:800])
    assert begun != claimed
    await claim(app, "paused~3", importing)
    answer = await app.ask("POST", f"/v1/ingest/{TENANT}/paused/pause", Role.RECORDER)
    assert (answer.status, answer.json["id"]) == (200, begun)
    answer = await app.ask("POST", f"/v1/ingest/{TENANT}/paused/flag", Role.RECORDER, body={"category": "threat"})
    assert (answer.status, answer.json.get("recording_id")) == (201, begun), answer.body


async def test_pieces_go_to_the_recording_that_their_token_began(app, standby):
    begun = (await put(app, "pieces?append", AUDIO[:800])).json["id"]
    await claim(app, "pieces~2", standby)
    rest = await put(app, "pieces?append", AUDIO[800:], Content_Range=f"bytes 800-1599/{len(AUDIO)}")
    assert (rest.status, rest.json["id"]) == (201, begun)


async def test_an_expired_token_finishes_its_own_call_though_another_claimed_the_key(app, importing):
    over = (app.clock.now() + timedelta(hours=1)).isoformat()
    wanted = {"name": "until one", "role": "recorder", "tenant": TENANT, "expires_at": over}
    expiring = (await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=wanted)).json["token"]
    claimed = await claim(app, "expired", importing, Call_Started=LONG_AGO)
    begun = await claim(app, "expired", expiring, AUDIO[:800])
    app.clock.advance(hours=2)
    answer = await put(app, "expired", AUDIO[800:], expiring, Upload_Offset="800")
    assert (answer.status, answer.json["id"]) == (201, begun)
    assert (await put(app, "expired", AUDIO, expiring)).status == 401
    assert (await app.vault.catalog.recording(claimed)).state == "open"
