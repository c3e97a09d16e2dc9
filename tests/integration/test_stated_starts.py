"""What a recorder says about the start of its call, and how long the recording is kept for it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from tests.helpers.app import PCMU, SETTINGS, TENANTS, running
from tests.helpers.crashing import memory_directory
from tests.helpers.s3clients import Recorder
from tests.helpers.stated_starts import AUDIO, near, newest, rtpengine
from tests.helpers.uploads import BYTES, Tus, metadata
from vault.instants import rfc3339
from vault.model import Role
from vault.retention.periods import parse_duration, parse_period
from vault.retention.policy import lifetime

pytestmark = pytest.mark.asyncio(loop_scope="module")

PERIOD, BACKDATING, FLOOR = timedelta(days=90), timedelta(days=7), timedelta(days=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app():
    retention = {**SETTINGS["retention"], "default": "90d", "floor": "1d", "backdating": "7d"}
    with memory_directory() as base:
        async with running(base, retention=retention) as each:
            yield each


async def put(app, key, start, token=None):
    headers = {"Content-Type": PCMU, "Call-Started": start.isoformat()}
    who = token or Role.RECORDER
    answer = await app.ask("PUT", f"/v1/ingest/northfield/{key}", who, data=AUDIO, headers=headers)
    assert answer.status == 201, answer.body
    return answer.json["recording_id"]


async def s3(app, key, start):
    client = Recorder.of(app.url, app.token(Role.RECORDER)).boto()
    said = {"started": start.isoformat()}
    await asyncio.to_thread(client.put_object, Bucket=TENANTS[0], Key=key, Body=AUDIO, ContentType=PCMU, Metadata=said)
    return await newest(app)


async def tus(app, key, start):
    client = Tus(app)
    said = metadata(call_key=key, filetype=PCMU, started=start.isoformat())
    answer = await client.ask(
        "POST",
        client.place,
        AUDIO,
        Upload_Length=str(len(AUDIO)),
        Upload_Metadata=said,
        Content_Type=BYTES,
    )
    assert answer.status == 201, answer
    return await newest(app)


async def shown(app, recording):
    """Return the recording with its instants read, and the audit entry of its start."""
    found = (await app.ask("GET", f"/v1/recordings/{recording}")).json
    for name in ("created_at", "started_at", "retain_until"):
        found[name] = datetime.fromisoformat(found[name])
    (entry,) = [each for each in await app.audit("recording.started") if each["target"] == recording]
    return found, entry["detail"]


async def counted(app, effect):
    text = (await app.ask("GET", "/metrics", Role.OPERATOR)).body.decode()
    wanted = f'callvault_recording_starts_total{{effect="{effect}"}} '
    return sum(float(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted))


@pytest.mark.parametrize("send", [put, s3, tus, rtpengine])
async def test_every_start_is_taken_and_no_recorder_chooses_its_own_end(app, send):
    now = app.clock.now()
    bounded, replaced = await counted(app, "bounded"), await counted(app, "replaced")

    start = now - PERIOD + timedelta(seconds=4)
    found, said = await shown(app, await send(app, f"{send.__name__}-old", start))
    assert near(found["started_at"], start)
    assert near(found["retain_until"], found["created_at"] - BACKDATING + PERIOD)
    assert said["retention"] == "bounded"
    assert near(datetime.fromisoformat(said["unstated_until"]), found["created_at"] + PERIOD)
    assert "stated_start" not in found["call"]

    impossible = [datetime(1999, 12, 31, tzinfo=UTC), now + timedelta(days=3), datetime(2100, 1, 1, tzinfo=UTC)]
    for number, start in enumerate(impossible):
        found, said = await shown(app, await send(app, f"{send.__name__}-{number}", start))
        assert found["started_at"] == found["created_at"]
        assert near(found["retain_until"], found["created_at"] + PERIOD)
        assert said["retention"] == "replaced"
        assert near(datetime.fromisoformat(said["stated_start"]), start)
        assert near(datetime.fromisoformat(found["call"]["stated_start"]), start)

    assert await counted(app, "bounded") == bounded + 1
    assert await counted(app, "replaced") == replaced + len(impossible)


async def test_the_edges_of_the_calendar_are_starts_that_cannot_be(app):
    for number, text in enumerate(("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59")):
        recording = await app.upload(f"edge-{number}", AUDIO, headers={"Call-Started": text})
        found, said = await shown(app, recording)
        assert (found["started_at"], said["retention"]) == (found["created_at"], "replaced")


async def test_the_audit_says_what_was_kept_shorter_and_the_list_what_was_kept_longer(app):
    ordinary = await app.upload("ordinary", AUDIO)
    found, said = await shown(app, ordinary)
    assert (found["started_at"], said) == (found["created_at"], {})

    before = await counted(app, "lengthened")
    earlier, later = app.clock.now() - timedelta(hours=2), app.clock.now() + timedelta(hours=5)
    shorter, longer = await put(app, "shorter", earlier), await put(app, "longer", later)
    for recording, start, effect in ((shorter, earlier, "shortened"), (longer, later, "lengthened")):
        found, said = await shown(app, recording)
        assert near(found["started_at"], start)
        assert near(found["retain_until"], start + PERIOD)
        assert said["retention"] == effect
        assert near(datetime.fromisoformat(said["retain_until"]), found["retain_until"])
    assert await counted(app, "lengthened") == before + 1

    ahead = await app.ask("POST", "/v1/recordings/search", body={"ahead": True})
    assert [each["id"] for each in ahead.json["recordings"]] == [longer]
    others = await app.ask("GET", "/v1/recordings?ahead=false&limit=1000")
    assert {shorter, ordinary} <= {each["id"] for each in others.json["recordings"]}
    assert longer not in {each["id"] for each in others.json["recordings"]}


async def test_a_token_that_imports_takes_true_dates_until_it_is_an_ordinary_recorders(app):
    over = app.clock.now() + timedelta(days=14)
    wanted = {"name": "old archive", "role": "recorder", "tenant": TENANTS[0], "imports_until": over.isoformat()}
    issued = await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=wanted)
    assert issued.status == 201, issued.body
    assert near(datetime.fromisoformat(issued.json["imports_until"]), over)
    listed = (await app.ask("GET", "/v1/tokens", Role.OPERATOR)).json["tokens"]
    assert [each["imports_until"] for each in listed if each["imports_until"]] == [issued.json["imports_until"]]
    (entry,) = [each for each in await app.audit("admin.token") if each["target"] == issued.json["id"]]
    assert entry["detail"]["imports_until"] == rfc3339(over)
    token = issued.json["token"]

    start = app.clock.now() - timedelta(days=80)
    found, said = await shown(app, await put(app, "import-recent", start, token))
    assert near(found["retain_until"], start + PERIOD)
    assert (said["retention"], said["import"]) == ("shortened", True)

    found, said = await shown(app, await put(app, "import-old", app.clock.now() - timedelta(days=900), token))
    assert near(found["retain_until"], found["created_at"] + FLOOR)

    found, said = await shown(app, await put(app, "import-1999", datetime(1999, 1, 1, tzinfo=UTC), token))
    assert near(found["retain_until"], found["created_at"] + PERIOD)
    assert said["retention"] == "replaced"

    app.clock.advance(days=14, seconds=1)
    found, said = await shown(app, await put(app, "import-late", start, token))
    assert near(found["retain_until"], found["created_at"] - BACKDATING + PERIOD)
    assert said["retention"] == "bounded"
    assert "import" not in said


async def test_a_recorder_can_ask_beforehand_how_long_what_it_sends_is_kept(app):
    until = app.clock.now() + timedelta(days=14)
    wanted = {"name": "an archive", "role": "recorder", "tenant": TENANTS[0], "imports_until": until.isoformat()}
    importing = (await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=wanted)).json["token"]
    for token, imports in ((Role.RECORDER, False), (importing, True)):
        said = (await app.ask("GET", f"/v1/ingest/{TENANTS[0]}", token)).json
        assert said["max_recording_bytes"] == app.config.server.max_recording_bytes
        assert (said["imports_until"] is not None) is imports
        for number, days in enumerate((3, 80, 900)):
            start = app.clock.now() - timedelta(days=days)
            found, _ = await shown(app, await put(app, f"asked-{imports}-{number}", start, token))
            promised = lifetime(
                start,
                receipt=found["created_at"],
                after=parse_period(said["retention"]).after,
                floor=parse_period(said["floor"]).after,
                backdating=None if imports else parse_duration(said["backdating"]),
            )
            assert near(found["retain_until"], promised.retain_until)


async def test_only_an_operator_issues_a_token_that_imports_and_only_to_a_recorder_and_for_a_while(app):
    body = {"name": "archive", "role": "recorder", "tenant": TENANTS[0]}
    for days in (-1, 91):
        until = (app.clock.now() + timedelta(days=days)).isoformat()
        answer = await app.ask("POST", "/v1/tokens", Role.OPERATOR, body={**body, "imports_until": until})
        assert (answer.status, answer.problem) == (422, "invalid")
    until = (app.clock.now() + timedelta(days=1)).isoformat()
    answer = await app.ask("POST", "/v1/tokens", Role.OPERATOR, body={**body, "role": "agent", "imports_until": until})
    assert (answer.status, answer.problem) == (422, "invalid")
    for role in (role for role in Role if role is not Role.OPERATOR):
        answer = await app.ask("POST", "/v1/tokens", role, body={**body, "imports_until": until})
        assert answer.status == 403
