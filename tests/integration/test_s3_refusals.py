"""What the S3 dialect refuses, in S3's own terms, and what a refusal leaves: nothing."""

import asyncio
import base64
import gzip
import hashlib
import logging
import re
import sqlite3
import xml.etree.ElementTree as ET
import zlib
from contextlib import closing
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from tests.helpers import approvals
from tests.helpers.app import PURPOSE, TENANTS, app, out_of_reach, running, sound
from tests.helpers.crashing import memory_directory
from tests.helpers.s3clients import BUCKET, HEAD, Recorder, signed
from tests.helpers.s3requests import MD5, WAV, ask, begun, code, keys, listing, part, recorder, refused
from vault import disk
from vault.errors import Unavailable
from vault.ids import TokenId
from vault.model import Role
from vault.protocol.s3.checksums import ALGORITHMS
from vault.protocol.s3.sigv4 import ChunkSigner, RequestHead, read_claim, signing_key
from vault.wiring import open_vault

__all__ = ["app", "recorder"]


async def test_who_does_not_sign_rightly_is_refused_with_the_code_that_says_why(app, recorder):
    path = f"/s3/{BUCKET}/call"
    assert await refused(app, recorder, "PUT", path, body=WAV, secret="x" * 43) == (403, "SignatureDoesNotMatch")
    for token in ("tok_" + "0" * 32, "tok_nonsense", app.token(Role.AGENT)[3:35].join(["tok_", ""])):
        stranger = Recorder(url=app.url, access_key=token, secret_key=recorder.secret_key)
        assert await refused(app, stranger, "PUT", path, body=WAV) == (403, "InvalidAccessKeyId")
    assert await refused(app, recorder, "PUT", path, headers={}) == (403, "AccessDenied")
    early = signed(recorder, "PUT", path, body=WAV)
    app.clock.advance(minutes=16)
    assert await refused(app, recorder, "PUT", path, body=WAV, headers=early) == (403, "RequestTimeTooSkewed")
    assert await keys(app) == {}


async def test_a_bucket_of_another_tenant_is_none_and_the_attempt_is_logged(app, recorder):
    for bucket in (TENANTS[1], "nobody", "A%20b"):
        assert await refused(app, recorder, "PUT", f"/s3/{bucket}/call", body=WAV) == (404, "NoSuchBucket")
    assert await app.denials() == 2
    foreign = await ask(app, recorder, "POST", f"/s3/{BUCKET}/call.wav?uploads")
    upload = ET.fromstring(foreign[1]).findtext("{*}UploadId")
    other = Recorder.of(app.url, app.token(Role.RECORDER, TENANTS[1]))
    for method, query in (("PUT", f"partNumber=1&uploadId={upload}"), ("GET", f"uploadId={upload}")):
        path = f"/s3/{TENANTS[1]}/call.wav?{query}"
        assert await refused(app, other, method, path) == (404, "NoSuchUpload")


async def test_a_revoked_token_signs_nothing(app, recorder):
    assert (await app.ask("DELETE", f"/v1/tokens/{recorder.access_key}", Role.OPERATOR)).status == 204
    assert await refused(app, recorder, "PUT", f"/s3/{BUCKET}/call", body=WAV) == (403, "InvalidAccessKeyId")


async def test_a_token_from_before_secrets_were_sealed_is_told_to_be_replaced(app, recorder):
    with closing(sqlite3.connect(app.config.catalog_path)) as catalog, catalog:
        catalog.execute("UPDATE tokens SET sealed_secret = NULL")
    status, document, _ = await ask(app, recorder, "PUT", f"/s3/{BUCKET}/call", body=WAV)
    assert (status, code(document)) == (403, "InvalidAccessKeyId")
    assert b"issue a new recorder token" in document


async def test_no_body_is_asked_for_before_the_signature_was_checked(app, recorder):
    for secret, expected in ((None, b"HTTP/1.1 100 Continue"), ("x" * 43, b"HTTP/1.1 403 Forbidden")):
        path = f"/s3/{BUCKET}/call"
        headers = signed(recorder, "PUT", path, body=WAV, secret=secret)
        headers |= {"Host": recorder.host, "Expect": "100-continue", "Content-Length": str(len(WAV))}
        reader, writer = await asyncio.open_connection(*recorder.host.split(":"))
        lines = [f"PUT {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        assert (await reader.readline()).strip() == expected
        writer.close()
        await writer.wait_closed()


async def test_at_the_root_only_what_is_signed_is_for_s3(app, recorder):
    answer = await app.ask("PUT", f"/{BUCKET}/call", Role.RECORDER, data=WAV)
    assert (answer.status, answer.problem) == (404, "not_found")
    assert (await app.ask("DELETE", "/v1/nothing", Role.OPERATOR)).status == 404
    assert (await ask(app, recorder, "PUT", f"/{BUCKET}/call", body=WAV))[0] == 200
    assert await keys(app) == {"call": ("sealed", len(WAV))}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("content_md5", base64.b64encode(bytes(16)).decode(), "BadDigest"),
        ("x_amz_checksum_crc32", base64.b64encode(bytes(4)).decode(), "BadDigest"),
        ("x_amz_checksum_crc32c", base64.b64encode(bytes(4)).decode(), "BadDigest"),
        ("x_amz_checksum_sha1", "nonsense", "InvalidDigest"),
    ],
)
async def test_a_body_whose_checksum_fails_leaves_nothing_and_may_be_sent_again(app, recorder, name, value, expected):
    path = f"/s3/{BUCKET}/call"
    assert await refused(app, recorder, "PUT", path, body=WAV, **{name: value}) == (400, expected)
    assert await refused(app, recorder, "PUT", path, body=WAV, sent=WAV[:-1] + b"?") == (
        400,
        "XAmzContentSHA256Mismatch",
    )
    assert await keys(app) == {}
    assert (await ask(app, recorder, "PUT", path, body=WAV))[0] == 200
    assert await keys(app) == {"call": ("sealed", len(WAV))}


async def test_a_body_signed_in_chunks_is_kept_only_if_every_chunk_is_the_senders(app, recorder):
    path = f"/s3/{BUCKET}/call"
    size = str(len(WAV))
    headers = signed(
        recorder, "PUT", path, payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD", x_amz_decoded_content_length=size
    )
    named = [*headers.items(), ("Host", recorder.host)]
    claim = read_claim(RequestHead(method="PUT", path=path, query="", headers=named))
    chain = ChunkSigner(claim, signing_key(recorder.secret_key, claim.scope))
    body = b""
    for chunk in (WAV[:65_536], WAV[65_536:], b""):
        signature = chain.chunk(hashlib.sha256(chunk).hexdigest()).encode()
        body += b"%x;chunk-signature=%s\r\n%s\r\n" % (len(chunk), signature, chunk)
    for changed in (body.replace(WAV[-9:], b"?" * 9), body[:-200]):
        status, document, _ = await ask(app, recorder, "PUT", path, sent=changed, headers=headers)
        assert (status, code(document)) in ((403, "SignatureDoesNotMatch"), (400, "IncompleteBody"))
    assert await keys(app) == {}
    assert (await ask(app, recorder, "PUT", path, sent=body, headers=headers))[0] == 200
    assert await keys(app) == {"call": ("sealed", len(WAV))}


async def test_the_same_body_again_is_recorded_once_and_another_one_beside_it(app, recorder):
    path = f"/s3/{BUCKET}/call"
    for _ in range(3):
        status, _, headers = await ask(app, recorder, "PUT", path, body=WAV)
        assert (status, headers["ETag"]) == (200, f'"{MD5}"')
    assert await keys(app) == {"call": ("sealed", len(WAV))}
    other = HEAD + sound(500, 9)
    assert (await ask(app, recorder, "PUT", path, body=other))[0] == 200
    assert await keys(app) == {"call": ("sealed", len(WAV)), "call~2": ("sealed", len(other))}


async def test_the_hundred_and_fiftieth_body_of_one_key_asks_the_catalog_no_more_than_the_tenth(
    app, recorder, monkeypatch
):
    path, asked, call = f"/s3/{BUCKET}/call", [], app.vault.search.call

    async def counted(tenant, name):
        asked.append(name)
        return await call(tenant, name)

    monkeypatch.setattr(app.vault.search, "call", counted)
    cost, looked = [], []
    for number in range(150):
        body = HEAD + sound(500 + 2 * number, 9)
        asked.clear()
        assert (await ask(app, recorder, "PUT", path, body=body))[0] == 200
        cost.append(len(asked))
        if number > 10 and number % 10:
            continue
        asked.clear()
        status, _, headers = await ask(app, recorder, "HEAD", path)
        assert (status, headers["Content-Length"]) == (200, str(len(body)))
        looked.append(len(asked))
    assert max(cost) <= 8, "two looks at the newest name, its neighbours, and the four that are compared"
    assert max(looked) <= 5
    await asyncio.gather(*(session.done.wait() for session in app.vault.ingest._by_id.values()))
    assert app.vault.ingest._by_call == app.vault.ingest._further == {}
    names = [await app.vault.search.call(TENANTS[0], "call" if n == 1 else f"call~{n}") for n in range(1, 152)]
    assert len({row.id for row in names[:150]}) == 150
    assert names[150] is None


async def test_two_bodies_that_come_at_once_under_a_key_with_recordings_are_both_kept(app, recorder):
    path = f"/s3/{BUCKET}/call"
    bodies = [HEAD + sound(500 + 2 * number, 9) for number in range(5)]
    for body in bodies[:3]:
        assert (await ask(app, recorder, "PUT", path, body=body))[0] == 200

    async def put(body):
        while (status := (await ask(app, recorder, "PUT", path, body=body))[0]) == 503:
            await asyncio.sleep(0.01)
        return status

    assert await asyncio.gather(put(bodies[3]), put(bodies[4])) == [200, 200]
    kept = await keys(app)
    assert sorted(kept) == ["call", "call~2", "call~3", "call~4", "call~5"]
    assert sorted(size for _, size in kept.values()) == [len(body) for body in bodies]


async def test_recorders_read_list_and_delete_nothing(app, recorder):
    await ask(app, recorder, "PUT", f"/s3/{BUCKET}/call", body=WAV)
    for method, path in (
        ("GET", "call"),
        ("DELETE", "call"),
        ("GET", ""),
        ("GET", "?list-type=2"),
        ("PUT", ""),
        ("PUT", "call?acl"),
    ):
        assert await refused(app, recorder, method, f"/s3/{BUCKET}/{path}") == (403, "AccessDenied")
    place = f"/v1/ingest/{TENANTS[0]}/live"
    sent = {"Content-Type": "audio/PCMU;rate=8000;channels=1", "Content-Range": "bytes 0-99/*"}
    begun = await app.ask("PUT", place, Role.RECORDER, data=sound(100), headers=sent)
    assert begun.status == 202
    end = {"Content-Type": sent["Content-Type"], "Upload-Offset": "100"}
    assert (await app.ask("PUT", place, Role.RECORDER, data=sound(50), headers=end)).status == 201
    recording = f"/v1/recordings/{begun.json['recording_id']}"
    for path in ("/v1/recordings", recording, f"{recording}/audio", f"{recording}/notes", "/v1/holds"):
        assert (await app.ask("GET", path, Role.RECORDER, headers=PURPOSE)).status == 403
    assert (await app.ask("DELETE", recording, Role.RECORDER)).status == 405
    assert await keys(app) == {"call": ("sealed", len(WAV)), "live": ("sealed", 150)}


async def test_a_completion_that_names_other_parts_changes_nothing(app, recorder):
    address = await begun(app, recorder)
    assert (await ask(app, recorder, "PUT", part(address, 1), body=WAV))[0] == 200
    zero = "0" * 32
    for body, expected in (
        (listing((1, zero)), "InvalidPart"),
        (listing((1, MD5), (2, MD5)), "InvalidPart"),
        (listing((2, MD5), (1, MD5)), "InvalidPartOrder"),
        (b"<nonsense/>", "MalformedXML"),
    ):
        assert await refused(app, recorder, "POST", address, body=body) == (400, expected)
    assert await refused(app, recorder, "PUT", part(address, 10_001), body=WAV) == (400, "InvalidArgument")
    changed = await refused(app, recorder, "PUT", part(address, 1), body=WAV, sent=WAV[:-1] + b"?")
    assert changed == (400, "XAmzContentSHA256Mismatch")
    assert (await ask(app, recorder, "POST", address, body=listing((1, MD5))))[0] == 200
    assert await keys(app) == {"call.wav": ("sealed", len(WAV))}


async def test_a_part_that_could_not_be_kept_leaves_the_one_that_was_acknowledged(app, recorder, monkeypatch):
    address = await begun(app, recorder)
    other = HEAD + sound(900, 5)
    assert (await ask(app, recorder, "PUT", part(address, 1), body=WAV))[0] == 200
    with monkeypatch.context() as patch:

        def fails(_):
            raise OSError(5, "I/O error")

        patch.setattr(disk, "sync_directory", fails)
        assert await refused(app, recorder, "PUT", part(address, 1), body=other) == (503, "SlowDown")
    unkept = listing((1, hashlib.md5(other).hexdigest()))
    assert await refused(app, recorder, "POST", address, body=unkept) == (400, "InvalidPart")
    assert (await ask(app, recorder, "POST", address, body=listing((1, MD5))))[0] == 200
    assert await keys(app) == {"call.wav": ("sealed", len(WAV))}


def crc(*pieces):
    return base64.b64encode(b"".join(zlib.crc32(piece).to_bytes(4, "big") for piece in pieces)).decode()


async def test_a_completion_compares_all_that_it_states_of_the_parts_and_of_the_whole(app, recorder):
    address = await begun(app, recorder)
    halves = WAV[:40_000], WAV[40_000:]
    for number, half in enumerate(halves, 1):
        sent = {"x_amz_checksum_crc32": crc(half)} if number == 1 else {}
        assert (await ask(app, recorder, "PUT", part(address, number), body=half, **sent))[0] == 200
    named = listing(*((number, hashlib.md5(half).hexdigest()) for number, half in enumerate(halves, 1)))
    checked = named
    for half in halves:
        checked = checked.replace(
            b"</ETag></Part>", f"</ETag><ChecksumCRC32>{crc(half)}</ChecksumCRC32></Part>".encode(), 1
        )
    zero = base64.b64encode(bytes(4)).decode()
    composite = base64.b64encode(zlib.crc32(base64.b64decode(crc(*halves))).to_bytes(4, "big")).decode()
    for body, stated, expected in (
        (named, {"x_amz_checksum_crc32": zero}, "BadDigest"),
        (named, {"x_amz_checksum_crc32": f"{zero}-2"}, "BadDigest"),
        (named, {"x_amz_checksum_crc32": f"{composite}-3"}, "BadDigest"),
        (named, {"x_amz_mp_object_size": "7"}, "InvalidRequest"),
        (checked.replace(crc(halves[0]).encode(), zero.encode()), {}, "InvalidPart"),
        (checked.replace(crc(halves[1]).encode(), zero.encode()), {}, "InvalidPart"),
        (checked.replace(b"CRC32", b"WHIRLPOOL"), {}, "NotImplemented"),
    ):
        assert (await refused(app, recorder, "POST", address, body=body, **stated))[1] == expected, stated
    true = {"x_amz_checksum_crc64nvme": whole_digest("crc64nvme"), "x_amz_checksum_crc32": f"{composite}-2"}
    size = str(len(WAV))
    assert (await ask(app, recorder, "POST", address, body=checked, x_amz_mp_object_size=size, **true))[0] == 200
    assert await keys(app) == {"call.wav": ("sealed", len(WAV))}


def whole_digest(name):
    running = ALGORITHMS[name]()
    running.update(WAV)
    return base64.b64encode(running.digest()).decode()


async def test_an_empty_part_is_a_part_wherever_it_stands(app, recorder):
    address, none = await begun(app, recorder), hashlib.md5(b"").hexdigest()
    for number, body in ((1, b""), (2, WAV), (3, b"")):
        assert (await ask(app, recorder, "PUT", part(address, number), body=body))[0] == 200
    document = (await ask(app, recorder, "GET", address))[1]
    assert [each.text for each in ET.fromstring(document).iterfind("{*}Part/{*}Size")] == ["0", str(len(WAV)), "0"]
    named = listing((1, none), (2, MD5), (3, none))
    assert (await ask(app, recorder, "POST", address, body=named))[0] == 200
    assert await keys(app) == {"call.wav": ("sealed", len(WAV))}


async def test_an_upload_ends_while_the_catalog_cannot_take_its_etag_and_keeps_it(app, recorder, monkeypatch):
    async def fails(*_, **__):
        raise Unavailable("the catalog cannot be written")

    address = await begun(app, recorder)
    assert (await ask(app, recorder, "PUT", part(address, 1), body=WAV))[0] == 200
    with monkeypatch.context() as patch:
        patch.setattr(app.vault.catalog, "put_notes", fails)
        status, _, done = await ask(app, recorder, "POST", address, body=listing((1, MD5)))
        assert status == 200
        assert (await keys(app)) == {"call.wav": ("sealed", len(WAV))}
    assert (await ask(app, recorder, "HEAD", f"/s3/{BUCKET}/call.wav"))[2]["ETag"] == done["ETag"]


async def test_the_etag_of_a_whole_upload_is_durable_with_its_row_and_costs_no_transaction(app, recorder):
    catalog, path = app.vault.catalog, f"/s3/{BUCKET}/call.wav"
    with out_of_reach(catalog, "put_notes"), out_of_reach(app.vault.storer._store, "put"):
        status, _, sent = await ask(app, recorder, "PUT", path, body=WAV)
        assert (status, sent["ETag"]) == (200, f'"{MD5}"')
        assert len(await catalog.notes(sent["Recording-Id"])) == 1, "a restart before it is stored knows it"
    assert (await keys(app)) == {"call.wav": ("sealed", len(WAV))}
    assert (await ask(app, recorder, "HEAD", path))[2]["ETag"] == sent["ETag"]


async def test_what_goes_on_with_an_interrupted_upload_has_not_its_etag(app, recorder):
    path, other = f"/s3/{BUCKET}/call.wav", HEAD + sound(70_000, 2)
    with out_of_reach(app.vault.ingest, "write"):
        assert (await ask(app, recorder, "PUT", path, body=WAV))[0] == 503
    await app.upload("call.wav", other, media="audio/wav")
    assert (await ask(app, recorder, "HEAD", path))[2]["ETag"] == f'"{hashlib.sha256(other).hexdigest()}"'


async def test_an_upload_that_never_was_is_none(app, recorder):
    for upload in ("rec_" + "0" * 32, "nonsense"):
        for method, query in (("PUT", "partNumber=1&"), ("GET", ""), ("POST", ""), ("DELETE", "")):
            path = f"/s3/{BUCKET}/call.wav?{query}uploadId={upload}"
            body = listing((1, MD5)) if method == "POST" else b""
            assert await refused(app, recorder, method, path, body=body) == (404, "NoSuchUpload")


async def unfinished(app, recorder, **parameters):
    listed = await asyncio.to_thread(recorder.boto().list_multipart_uploads, Bucket=BUCKET, **parameters)
    assert listed["IsTruncated"] is False
    return [(each["Key"], each["UploadId"]) for each in listed.get("Uploads", ())]


async def test_a_token_lists_the_unfinished_uploads_that_it_began_and_no_others(app, recorder):
    first, second, third = [
        (await begun(app, recorder, key)).partition("=")[2] for key in ("b/c%20d.wav", "a.wav", "a.wav")
    ]
    assert await unfinished(app, recorder) == [("a.wav", second), ("a.wav", third), ("b/c d.wav", first)]
    assert await unfinished(app, recorder, Prefix="b/c") == [("b/c d.wav", first)]
    body = {"name": "second recorder", "role": "recorder", "tenant": BUCKET}
    colleague = Recorder.of(app.url, (await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body)).json["token"])
    assert await unfinished(app, colleague) == []
    stranger = Recorder.of(app.url, app.token(Role.RECORDER, TENANTS[1]))
    assert await refused(app, stranger, "GET", f"/s3/{BUCKET}?uploads") == (404, "NoSuchBucket")
    theirs = (await ask(app, stranger, "POST", f"/s3/{TENANTS[1]}/z.wav?uploads"))[1]
    foreign = re.search(rb"<UploadId>(\w+)<", theirs)[1].decode()
    for marker in (foreign, foreign[:-1] + ("0" if foreign[-1] != "0" else "1")):
        rest = await unfinished(app, recorder, KeyMarker="a.wav", UploadIdMarker=marker)
        assert rest == [("b/c d.wav", first)], "a marker is compared, and never looked up"
    assert await refused(app, recorder, "GET", f"/s3/{BUCKET}?uploads&max-uploads=x") == (400, "InvalidArgument")
    address = f"/s3/{BUCKET}/a.wav?uploadId="
    assert (await ask(app, recorder, "PUT", part(address + second, 1), body=WAV))[0] == 200
    assert (await ask(app, recorder, "POST", address + second, body=listing((1, MD5))))[0] == 200
    assert (await ask(app, recorder, "DELETE", address + third))[0] == 204
    assert await unfinished(app, recorder) == [("b/c d.wav", first)]


async def test_an_unfinished_upload_is_listed_after_a_restart():
    with memory_directory() as base:
        async with running(base) as app:
            token = app.token(Role.RECORDER)
            recorder = Recorder.of(app.url, token)
            await begun(app, recorder, "a.wav")
            upload = (await begun(app, recorder, "a.wav")).partition("=")[2]
            before = await unfinished(app, recorder)
            config, clock = app.config, app.clock
        assert before[1] == ("a.wav", upload)
        async with open_vault(config, clock=clock) as vault:
            token_id = TokenId(recorder.access_key)
            there = [
                (each.key, each.session.recording.id) for each in vault.parts.unfinished(BUCKET, begun_by=token_id)
            ]
            assert sorted(there) == before


async def test_an_aborted_upload_ends_truncated_with_every_byte_and_its_name_stays_usable(app, recorder):
    address = await begun(app, recorder)
    assert (await ask(app, recorder, "PUT", part(address, 1), body=WAV))[0] == 200
    assert (await ask(app, recorder, "DELETE", address))[0] == 204
    assert not list(app.config.spool_path.iterdir())
    for method, path, body in (
        ("DELETE", address, b""),
        ("PUT", part(address, 1), WAV),
        ("POST", address, listing((1, MD5))),
        ("GET", address, b""),
    ):
        assert await refused(app, recorder, method, path, body=body) == (404, "NoSuchUpload")
    assert (await ask(app, recorder, "HEAD", f"/s3/{BUCKET}/call.wav"))[0] == 404
    second = await begun(app, recorder)
    assert (await ask(app, recorder, "PUT", part(second, 7), body=WAV))[0] == 200
    assert (await ask(app, recorder, "POST", second, body=listing((7, MD5))))[0] == 200
    assert await keys(app) == {"call.wav": ("truncated", len(WAV)), "call.wav~2": ("sealed", len(WAV))}
    assert (await ask(app, recorder, "HEAD", f"/s3/{BUCKET}/call.wav"))[0] == 200


async def test_a_pause_that_could_not_keep_parts_out_is_refused_instead_of_promised(app, recorder):
    address = await begun(app, recorder)
    answer = await app.ask("POST", f"/v1/ingest/{BUCKET}/call.wav/pause", Role.RECORDER)
    assert answer.status == 409
    assert "every part that was sent is kept" in answer.json["hint"]
    assert (await ask(app, recorder, "PUT", part(address, 1), body=WAV))[0] == 200
    assert (await ask(app, recorder, "POST", address, body=listing((1, MD5))))[0] == 200
    assert await keys(app) == {"call.wav": ("sealed", len(WAV))}


async def test_an_upload_that_does_not_say_what_it_is_is_told_to(app, recorder):
    assert await refused(app, recorder, "POST", f"/s3/{BUCKET}/call?uploads") == (400, "InvalidArgument")
    path = f"/s3/{BUCKET}/call?uploads"
    assert (await ask(app, recorder, "POST", path, Content_Type="audio/PCMU;rate=8000;channels=2"))[0] == 200


async def test_an_abandoned_upload_plays_the_parts_before_the_first_gap_and_keeps_the_others_aside():
    with memory_directory() as base:
        server = {"port": 0, "upload_grace": "1h", "drain_grace": "1s"}
        async with running(base, server=server) as app:
            recorder = Recorder.of(app.url, app.token(Role.RECORDER))
            address = await begun(app, recorder)
            pieces = {number: WAV + sound(100 + number, number) for number in (1, 2, 4)}
            for number in (4, 2, 1):
                assert (await ask(app, recorder, "PUT", part(address, number), body=pieces[number]))[0] == 200
            app.clock.slept += 59 * 60
            await app.vault.keyring.refresh()
            assert (await ask(app, recorder, "GET", address))[0] == 200
            app.clock.slept += 61 * 60
            await app.vault.keyring.refresh()
            session = app.vault.ingest.live_call(BUCKET, "call.wav")
            async with asyncio.timeout(10):
                await session.done.wait()
            assert await keys(app) == {"call.wav": ("truncated", sum(map(len, pieces.values())))}
            assert (await app.play(session.recording.id)).body == pieces[1] + pieces[2]
            path = f"/v1/recordings/{session.recording.id}/aside/0"
            assert (await app.ask("GET", path, headers=PURPOSE)).body == pieces[4]
            async with asyncio.timeout(5):
                while list(app.config.spool_path.iterdir()):
                    await asyncio.sleep(0.05)


async def test_a_body_that_breaks_off_keeps_what_is_the_recorders_and_the_retry_completes_it(
    app, recorder, monkeypatch
):
    begun, body = asyncio.Event(), app.vault.objects.body

    def reading(*said, **named):
        begun.set()
        return body(*said, **named)

    monkeypatch.setattr(app.vault.objects, "body", reading)
    path = f"/s3/{BUCKET}/call"
    headers = signed(recorder, "PUT", path, body=WAV, payload="UNSIGNED-PAYLOAD")
    headers |= {"Host": recorder.host, "Content-Length": str(len(WAV))}
    _, writer = await asyncio.open_connection(*recorder.host.split(":"))
    lines = [f"PUT {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode() + WAV[:40_000])
    await writer.drain()
    async with asyncio.timeout(30):
        await begun.wait()
    for _ in range(2):  # by the time these are answered, the server has read what came before them
        assert (await ask(app, recorder, "HEAD", path))[0] == 404
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(5):
        while (session := app.vault.ingest.live_call(BUCKET, "call")) is None or session.uploads:
            await asyncio.sleep(0.01)
    assert 0 < session.appended <= 40_000
    assert (await ask(app, recorder, "HEAD", path))[0] == 404
    assert (await ask(app, recorder, "PUT", path, body=WAV))[0] == 200
    assert await keys(app) == {"call": ("sealed", len(WAV))}
    assert (await app.play(session.recording.id)).body == WAV


async def test_recorders_slow_down_where_the_spool_is_full_and_lose_nothing():
    with memory_directory() as base:
        async with running(base, parts={"max_bytes": "100KiB"}) as app:
            recorder = Recorder.of(app.url, app.token(Role.RECORDER))
            address = await begun(app, recorder)
            assert (await ask(app, recorder, "PUT", part(address, 1), body=WAV))[0] == 200
            for _ in range(3):
                status, document, headers = await ask(app, recorder, "PUT", part(address, 2), body=WAV)
                assert (status, code(document)) == (503, "SlowDown")
                assert int(headers["Retry-After"]) > 0
            assert (await ask(app, recorder, "POST", address, body=listing((1, MD5))))[0] == 200
            assert (await ask(app, recorder, "PUT", f"/s3/{BUCKET}/next", body=WAV))[0] == 200
            assert await keys(app) == {"call.wav": ("sealed", len(WAV)), "next": ("sealed", len(WAV))}
            assert not app.vault.parts._shares.uses


async def test_a_recording_that_is_too_large_is_refused_in_whole_and_in_parts():
    with memory_directory() as base:
        async with running(base, server={"port": 0, "max_recording_bytes": "100KiB"}) as app:
            recorder = Recorder.of(app.url, app.token(Role.RECORDER))
            large = WAV + WAV
            assert await refused(app, recorder, "PUT", f"/s3/{BUCKET}/call", body=large) == (400, "EntityTooLarge")
            address = await begun(app, recorder)
            assert (await ask(app, recorder, "PUT", part(address, 1), body=WAV))[0] == 200
            assert await refused(app, recorder, "PUT", part(address, 2), body=WAV) == (400, "EntityTooLarge")
            assert (await ask(app, recorder, "PUT", part(address, 1), body=WAV))[0] == 200


async def test_parts_that_come_at_once_make_no_recording_that_is_too_large():
    with memory_directory() as base:
        async with running(base, server={"port": 0, "max_recording_bytes": "100KiB"}) as app:
            recorder = Recorder.of(app.url, app.token(Role.RECORDER))
            address = await begun(app, recorder)
            both = asyncio.Event()

            async def halting():
                yield WAV[:100]
                await both.wait()
                yield WAV[100:]

            def send(number):
                path = part(address, number)
                headers = signed(recorder, "PUT", path, payload="UNSIGNED-PAYLOAD")
                return asyncio.create_task(ask(app, recorder, "PUT", path, sent=halting(), headers=headers))

            sends = [send(1), send(2)]
            async with asyncio.timeout(5):
                while len(list(base.rglob("0000?.*"))) < len(sends):
                    await asyncio.sleep(0.01)
            both.set()
            answers = sorted([(status, document) for status, document, _ in await asyncio.gather(*sends)])
            assert [status for status, _ in answers] == [200, 400]
            assert code(answers[1][1]) == "EntityTooLarge"
            listed = ET.fromstring((await ask(app, recorder, "GET", address))[1])
            assert [each.text for each in listed.findall("{*}Part/{*}Size")] == [str(len(WAV))]


async def test_a_compressed_object_is_refused_and_leaves_nothing_in_the_vault_or_the_log(app, recorder, caplog):
    for body in (WAV, gzip.compress(WAV)):
        for payload in (None, "UNSIGNED-PAYLOAD"):
            asked = {"body": body, "payload": payload, "Content_Encoding": "gzip", "Content_Type": "audio/wav"}
            assert await refused(app, recorder, "PUT", f"/s3/{BUCKET}/call", **asked) == (501, "NotImplemented")
    assert await keys(app) == {}
    warnings = {each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING}
    assert warnings == {"request refused"}


async def test_no_secret_key_is_stored_or_logged_in_clear(app, recorder, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    await ask(app, recorder, "PUT", f"/s3/{BUCKET}/call", body=WAV)
    await ask(app, recorder, "PUT", f"/s3/{BUCKET}/call", body=WAV, secret="x" * 43)
    with monkeypatch.context() as patch:  # a defect says most
        patch.setattr(app.vault.objects, "put", None)
        assert await refused(app, recorder, "PUT", f"/s3/{BUCKET}/call", body=WAV) == (500, "InternalError")
    stored = {path.name: path.read_bytes() for path in app.config.resolve(None, "").rglob("*") if path.is_file()}
    assert [name for name, content in stored.items() if recorder.secret_key.encode() in content] == []
    served = [each for each in caplog.records if each.name.startswith("vault")]
    said = "".join(f"{each.__dict__} {logging.Formatter().format(each)}" for each in served)
    assert stored
    assert "TypeError" in said
    assert recorder.secret_key not in said


async def test_a_tenant_whose_contract_ended_records_nothing(app, recorder):
    client = recorder.boto()
    ended = (app.clock.now() - timedelta(days=1)).isoformat()
    body = {"contract_end": ended}
    asked = await app.ask("POST", f"/v1/tenants/{BUCKET}/offboard", Role.OPERATOR, body=body)
    assert asked.status < 300, asked.body
    approved = await approvals.approve(app, f"/v1/tenants/{BUCKET}/offboard", Role.DPO)
    assert approved.status < 300, approved.body
    with pytest.raises(ClientError):
        await asyncio.to_thread(client.put_object, Bucket=BUCKET, Key="call", Body=WAV)
    with pytest.raises(ClientError):
        await asyncio.to_thread(client.create_multipart_upload, Bucket=BUCKET, Key="call.wav")
    assert await keys(app) == {}
