"""What S3 writes ask for beside storing: holds, dates, and to be the first of their key. It is so, or it is refused."""

import asyncio
import hashlib
import io
import sqlite3
import xml.etree.ElementTree as ET
from contextlib import closing
from datetime import UTC, datetime, timedelta

from minio import Minio
from minio.retention import Retention

from tests.helpers.app import app, sound
from tests.helpers.s3clients import BUCKET, HEAD, REGION
from tests.helpers.s3requests import MD5, WAV, ask, begun, code, keys, listing, part, recorder, refused
from tests.helpers.tenants import metadata_kept
from vault.errors import Unavailable
from vault.model import HoldKind, Role
from vault.retention.decide import suggest_review

__all__ = ["app", "recorder"]


LOCK = {"x_amz_object_lock_legal_hold": "ON"}


async def holds(app):
    return (await app.ask("GET", "/v1/holds")).json["holds"]


def until(app, **after):
    date = (app.clock.now() + timedelta(**after)).isoformat()
    return {"x_amz_object_lock_mode": "GOVERNANCE", "x_amz_object_lock_retain_until_date": date}


async def test_a_legal_hold_that_an_upload_asks_for_is_there_before_the_answer_and_once(app, recorder):
    path = f"/s3/{BUCKET}/call"
    for _ in range(2):
        status, _, headers = await ask(app, recorder, "PUT", path, body=WAV, **LOCK)
        assert status == 200
        [hold] = await holds(app)
        held = [{"id": headers["Recording-Id"], "outcome": "held"}]
        assert (hold["kind"], hold["state"], hold["recordings"]) == ("legal", "active", held)
    tenant = await app.vault.catalog.tenant(BUCKET)
    assert hold["owner"] == tenant.contact
    address = await begun(app, recorder, "parts.wav")
    assert len(await holds(app)) == 1
    _, document, _ = await ask(app, recorder, "POST", f"/s3/{BUCKET}/held.wav?uploads", **LOCK)
    upload = ET.fromstring(document).findtext("{*}UploadId")
    assert [each["recordings"][0]["id"] for each in await holds(app)].count(upload) == 1
    assert await refused(app, recorder, "PUT", part(address, 1), body=WAV, **LOCK) == (400, "InvalidRequest")

    created = (await app.vault.catalog.recording(headers["Recording-Id"])).started_at
    review = suggest_review(HoldKind.LEGAL, now=created, call_started=created, latest=created)
    assert datetime.fromisoformat(hold["review_at"]) == review.replace(microsecond=review.microsecond // 1000 * 1000)
    app.clock.advance(days=30)
    await app.certified()
    assert (await app.play(headers["Recording-Id"])).body == WAV, "its time was up, and the hold keeps it"


async def test_the_minio_sdk_locks_what_it_puts_whole_and_in_parts(app, recorder):
    client = Minio(
        recorder.host, access_key=recorder.access_key, secret_key=recorder.secret_key, secure=False, region=REGION
    )
    date = datetime.now(UTC).replace(microsecond=0) + timedelta(days=400)
    lock = {"legal_hold": True, "retention": Retention("GOVERNANCE", date), "content_type": "audio/wav"}

    def upload():
        client.put_object(BUCKET, "whole.wav", io.BytesIO(WAV), len(WAV), **lock)
        client.put_object(BUCKET, "parts.wav", io.BytesIO(WAV * 80), -1, part_size=5 << 20, **lock)

    await asyncio.to_thread(upload)
    await keys(app)
    held = {each["recordings"][0]["id"] for each in await holds(app)}
    found = (await app.ask("GET", "/v1/recordings")).json["recordings"]
    assert len(found) == 2
    for each in found:
        assert each["id"] in held
        assert (await app.vault.catalog.recording(each["id"])).retain_until == date


async def test_a_recorder_that_may_hold_can_neither_see_nor_release_holds(app, recorder):
    assert (await ask(app, recorder, "PUT", f"/s3/{BUCKET}/call", body=WAV, **LOCK))[0] == 200
    [hold] = await holds(app)
    held = hold["recordings"][0]["id"]
    assert (await app.ask("GET", "/v1/holds", Role.RECORDER)).status == 403
    place = f"/v1/holds/{hold['id']}"
    assert (await app.ask("POST", f"{place}/release", Role.RECORDER, body={"reason": "x"})).status == 403
    assert (await app.ask("POST", "/v1/holds", Role.RECORDER, body=app.hold_body(held))).status == 403
    found = (await ask(app, recorder, "HEAD", f"/s3/{BUCKET}/call"))[2]
    assert not [name for name in found if "lock" in name.lower()]


async def test_a_hold_that_could_not_be_placed_is_not_answered_and_the_retry_finds_the_audio(
    app, recorder, monkeypatch
):
    path = f"/s3/{BUCKET}/call"
    with monkeypatch.context() as patch:

        async def fails(*_, **__):
            raise Unavailable("the keyring cannot be written")

        patch.setattr(app.vault.holds, "_decide", fails)
        assert await refused(app, recorder, "PUT", path, body=WAV, **LOCK) == (503, "SlowDown")
    assert (await ask(app, recorder, "PUT", path, body=WAV, **LOCK))[0] == 200
    assert await keys(app) == {"call": ("sealed", len(WAV))}
    assert [each["state"] for each in await holds(app)] == ["active"]


async def test_a_retain_until_date_lengthens_within_the_cap_and_never_shortens(app, recorder):
    path = f"/s3/{BUCKET}/call"

    async def kept(**asked):
        status, _, headers = await ask(app, recorder, "PUT", path, body=WAV, **asked)
        assert status == 200
        row = await app.vault.catalog.recording(headers["Recording-Id"])
        return row, row.retain_until - row.created_at

    plain, usual = await kept()
    same, time = await kept(**until(app, days=3))
    assert (same.id, time) == (plain.id, usual), "what is kept longer already is not kept twice"
    longer = until(app, days=400)
    first, time = await kept(**longer)
    assert timedelta(days=399) < time < timedelta(days=400)
    assert (first.retention_class, first.retention_period) == ("object_lock", None)
    assert (await kept(**longer))[0].id == first.id, "a repeated upload is the same recording"
    assert await refused(app, recorder, "PUT", path, body=WAV, **until(app, days=40_000)) == (400, "InvalidArgument")
    compliance = {**longer, "x_amz_object_lock_mode": "COMPLIANCE"}
    assert await refused(app, recorder, "PUT", path, body=WAV, **compliance) == (501, "NotImplemented")
    assert await keys(app) == {"call": ("sealed", len(WAV)), "call~2": ("sealed", len(WAV))}
    app.clock.advance(days=30)
    await app.certified()
    assert (await app.play(first.id)).status == 200
    assert (await app.play(plain.id)).status == 410
    why = (await app.ask("GET", f"/v1/recordings/{first.id}/why")).json
    assert "object_lock" in str(why)


async def test_a_recording_is_not_kept_longer_than_its_metadata(app, recorder):
    await metadata_kept(app.vault, BUCKET, days=60)
    path = f"/s3/{BUCKET}/call"
    assert await refused(app, recorder, "PUT", path, body=WAV, **until(app, days=200)) == (400, "InvalidArgument")
    assert (await ask(app, recorder, "PUT", path, body=WAV, **until(app, days=50)))[0] == 200


NEW = {"If_None_Match": "*"}


async def test_of_uploads_that_must_be_the_first_of_their_key_one_wins_and_the_others_leave_nothing(app, recorder):
    path = f"/s3/{BUCKET}/call"
    bodies = [HEAD + sound(500 + 2 * number, 9) for number in range(5)]
    answers = await asyncio.gather(*(refusal(app, recorder, "PUT", path, body, **NEW) for body in bodies))
    assert sorted(answers) == [(200, None)] + [(412, "PreconditionFailed")] * 4
    assert list(await keys(app)) == ["call"]
    assert await refused(app, recorder, "PUT", path, body=WAV, **NEW) == (412, "PreconditionFailed")
    assert (await ask(app, recorder, "PUT", path, body=WAV))[0] == 200, "without the condition it is one more"
    assert await refused(app, recorder, "PUT", path, body=WAV, If_None_Match='"x"') == (501, "NotImplemented")


async def refusal(app, recorder, method, path, body, **headers):
    status, document, _ = await ask(app, recorder, method, path, body=body, **headers)
    return status, code(document) if status != 200 else None


async def test_of_uploads_in_parts_under_one_key_the_first_that_completes_wins(app, recorder):
    addresses = [await begun(app, recorder) for _ in range(3)]
    for address in addresses:
        assert (await ask(app, recorder, "PUT", part(address, 1), body=WAV))[0] == 200
    document = listing((1, MD5))
    answers = await asyncio.gather(*(refusal(app, recorder, "POST", each, document, **NEW) for each in addresses))
    assert sorted(answers) == [(200, None)] + [(412, "PreconditionFailed")] * 2
    winner = addresses[answers.index((200, None))]
    assert (await ask(app, recorder, "POST", winner, body=document, **NEW))[0] == 200, "the answer may have been lost"
    assert [state for state, _ in (await keys(app)).values()].count("sealed") == 1
    path = f"/s3/{BUCKET}/call.wav"
    assert await refused(app, recorder, "POST", f"{path}?uploads", **NEW) == (412, "PreconditionFailed")


async def test_what_another_node_has_begun_under_a_key_is_not_taken_for_none(app, recorder):
    address = await begun(app, recorder)
    session = app.vault.ingest.live(address.partition("=")[2])
    with closing(sqlite3.connect(app.config.catalog_path)) as catalog, catalog:
        catalog.execute("UPDATE recordings SET node = 'another'")
    path = f"/s3/{BUCKET}/call.wav"
    assert await refused(app, recorder, "PUT", path, body=WAV, **NEW) == (409, "ConditionalRequestConflict")
    assert session.empty


async def test_an_object_is_found_under_its_own_key_whatever_its_call_key(app, recorder):
    path = f"/s3/{BUCKET}/2026/a%20b.wav"
    for number, name in enumerate(("call-1", "call-2", "call-1")):
        body = HEAD + sound(500 + 2 * number, 9)
        meta = {"x_amz_meta_call_key": name}
        status, _, sent = await ask(app, recorder, "PUT", path, body=body, **meta)
        assert status == 200
        status, _, found = await ask(app, recorder, "HEAD", path)
        assert (status, found["ETag"], found["Recording-Id"]) == (200, sent["ETag"], sent["Recording-Id"])
    assert (await ask(app, recorder, "HEAD", path, x_amz_meta_call_key="call-2"))[2]["Recording-Id"] != sent[
        "Recording-Id"
    ]
    assert set(await keys(app)) == {"call-1", "call-1~2", "call-2"}
    other = HEAD + sound(900, 9)
    assert (await ask(app, recorder, "PUT", path, body=other))[0] == 200
    status, _, found = await ask(app, recorder, "HEAD", path)
    assert found["ETag"] == f'"{hashlib.md5(other).hexdigest()}"', "the newest of the key, whatever it is called"
    assert await refused(app, recorder, "PUT", path, body=WAV, **NEW) == (412, "PreconditionFailed")
