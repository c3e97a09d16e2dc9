"""Real S3 clients upload whole and in parts, unmodified; what they sent is what plays."""

import asyncio
import hashlib
import io
import shutil
from urllib.parse import urlencode

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from minio import Minio
from yarl import URL

from tests.helpers.app import SETTINGS, app, running, sound
from tests.helpers.authorities import FILES, write_certificate
from tests.helpers.crashing import memory_directory
from tests.helpers.s3clients import BUCKET, HEAD, REGION, Recorder, aws, javascript, rclone, run, s3cmd
from tests.helpers.soak import sample
from vault.model import Role

__all__ = ["app"]

PART = 5 << 20
WAV = HEAD + sound(300_000)
LONG = HEAD + sound(2 * PART + 12_345)


@pytest.fixture
def recorder(app):
    return Recorder.of(app.url, app.token(Role.RECORDER))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "short.wav").write_bytes(WAV)
    (tmp_path / "long.wav").write_bytes(LONG)
    return tmp_path


async def recorded(app, call_key):
    """Return the bytes of the sealed recording under a call key, and its row."""
    async with asyncio.timeout(20):
        while True:
            session = app.vault.ingest.live_call(BUCKET, call_key)
            if session is None:
                row = await app.vault.search.call(BUCKET, call_key)
                assert row is not None, call_key
                break
            await session.done.wait()
    answer = await app.play(row.id)
    assert answer.status == 200
    return answer.body, row


async def sealed(app, call_key):
    audio, row = await recorded(app, call_key)
    assert row.state == "sealed"
    return audio


async def test_boto3_puts_and_uploads_parts_out_of_order(app, recorder):
    client = recorder.boto()
    await asyncio.to_thread(client.put_object, Bucket=BUCKET, Key="whole", Body=WAV, Metadata={"from": "+442079460123"})
    assert await sealed(app, "whole") == WAV

    made = await asyncio.to_thread(client.create_multipart_upload, Bucket=BUCKET, Key="a/call 7.wav")
    upload = {"Bucket": BUCKET, "Key": "a/call 7.wav", "UploadId": made["UploadId"]}
    pieces = {1: LONG[:PART], 2: LONG[PART : 2 * PART], 3: LONG[2 * PART :]}
    etags = {}
    await asyncio.to_thread(client.upload_part, **upload, PartNumber=2, Body=b"sent again later")
    for number in (3, 2, 1):
        sent = await asyncio.to_thread(client.upload_part, **upload, PartNumber=number, Body=pieces[number])
        etags[number] = sent["ETag"]
    listed = await asyncio.to_thread(client.list_parts, **upload)
    assert [(part["PartNumber"], part["ETag"], part["Size"]) for part in listed["Parts"]] == [
        (number, etags[number], len(pieces[number])) for number in (1, 2, 3)
    ]
    parts = {"Parts": [{"PartNumber": number, "ETag": etags[number]} for number in (1, 2, 3)]}
    done = await asyncio.to_thread(client.complete_multipart_upload, **upload, MultipartUpload=parts)
    again = await asyncio.to_thread(client.complete_multipart_upload, **upload, MultipartUpload=parts)
    whole = hashlib.md5(b"".join(hashlib.md5(piece).digest() for piece in pieces.values())).hexdigest()
    assert done["ETag"] == again["ETag"] == f'"{whole}-3"'
    assert await sealed(app, "a=2Fcall=207.wav") == LONG
    found = await asyncio.to_thread(client.head_object, Bucket=BUCKET, Key="a/call 7.wav")
    assert (found["ContentLength"], found["ETag"]) == (len(LONG), done["ETag"])


async def test_every_answer_about_an_object_has_one_etag_and_names_the_recording(app, recorder):
    client = recorder.boto()

    async def call(what, **named):
        answer = await asyncio.to_thread(getattr(client, what), Bucket=BUCKET, **named)
        return answer["ETag"], answer["ResponseMetadata"]["HTTPHeaders"]["recording-id"]

    async def stored(recording):
        while (session := app.vault.ingest.live(recording)) is not None:
            await session.done.wait()

    md5 = f'"{hashlib.md5(WAV).hexdigest()}"'
    etag, recording = await call("put_object", Key="whole", Body=WAV)
    assert etag == md5
    for _ in range(2):
        assert await call("head_object", Key="whole") == (md5, recording)
        assert await call("put_object", Key="whole", Body=WAV) == (md5, recording)
        await stored(recording)

    made = await asyncio.to_thread(client.create_multipart_upload, Bucket=BUCKET, Key="parts.wav")
    upload = {"Key": "parts.wav", "UploadId": made["UploadId"]}
    await asyncio.to_thread(client.upload_part, Bucket=BUCKET, **upload, PartNumber=1, Body=WAV)
    listed = {"Parts": [{"PartNumber": 1, "ETag": md5}]}
    etag, recording = await call("complete_multipart_upload", **upload, MultipartUpload=listed)
    assert etag == f'"{hashlib.md5(hashlib.md5(WAV).digest()).hexdigest()}-1"'
    assert recording == made["UploadId"]
    for _ in range(2):
        assert await call("head_object", Key="parts.wav") == (etag, recording)
        assert await call("complete_multipart_upload", **upload, MultipartUpload=listed) == (etag, recording)
        assert await call("put_object", Key="parts.wav", Body=WAV) == (etag, recording), "the same audio is one object"
        await stored(recording)

    other = await app.upload("other", WAV, media="audio/wav")
    digest = f'"{hashlib.sha256(WAV).hexdigest()}"'
    assert await call("head_object", Key="other") == (digest, other), "nobody was told an MD5: it is none"


async def test_the_aws_command_line_copies_whole_and_in_parts(app, recorder, files):
    for name, audio in (("short.wav", WAV), ("long.wav", LONG)):
        ran = await aws(recorder, "cp", files / name, f"s3://{BUCKET}/aws/{name}", "--no-progress")
        assert ran.code == 0, ran.output
        assert await sealed(app, f"aws=2F{name}") == audio


@pytest.mark.soak
@pytest.mark.parametrize("provider", sample(("Minio", "Ceph"), 1, of="rclone"))
async def test_rclone_compares_what_it_copies_whole_and_in_parts_and_finds_it_again(app, recorder, files, provider):
    for name, audio in (("short.wav", WAV), ("long.wav", LONG)):
        arguments = ("copyto", files / name, f"vault:{BUCKET}/{provider}/{name}")
        for _ in range(2):
            ran = await rclone(
                recorder, *arguments, "--s3-upload-cutoff=6M", "--s3-chunk-size=5M", "-v", provider=provider
            )
            assert ran.code == 0, ran.output
        assert await sealed(app, f"{provider}=2F{name}") == audio
    assert len((await app.ask("GET", "/v1/recordings")).json["recordings"]) == 2, "nothing was sent a second time"


async def test_s3cmd_puts_whole_and_in_parts_at_the_root(app, recorder, files):
    for name, audio in (("short.wav", WAV), ("long.wav", LONG)):
        ran = await s3cmd(recorder, "put", files / name, f"s3://{BUCKET}/{name}", "--multipart-chunk-size-mb=5")
        assert ran.code == 0, ran.output
        assert await sealed(app, name) == audio


@pytest.mark.parametrize(("what", "audio"), [("put", WAV), ("upload", LONG)])
async def test_the_javascript_sdk_uploads(app, recorder, files, what, audio):
    ran, answer = await javascript(recorder, what, files / ("short.wav" if what == "put" else "long.wav"), f"js-{what}")
    assert ran.code == 0, ran.output
    assert answer["ETag"]
    assert await sealed(app, f"js-{what}") == audio


@pytest.mark.soak
@pytest.mark.parametrize("what", sample(("file", "stream"), 1, of="minio-js"))
async def test_the_javascript_sdk_of_minio_goes_on_with_the_upload_that_it_finds(app, recorder, files, what):
    client = recorder.boto()
    made = await asyncio.to_thread(client.create_multipart_upload, Bucket=BUCKET, Key="a/file.wav")
    upload = {"Bucket": BUCKET, "Key": "a/file.wav", "UploadId": made["UploadId"]}
    await asyncio.to_thread(client.upload_part, **upload, PartNumber=1, Body=LONG[:PART])
    ran, answer = await javascript(recorder, what, files / "long.wav", "a/file.wav", script="minio.mjs")
    assert ran.code == 0, ran.output
    assert answer["found"] == {"ETag": answer["ETag"], "size": len(LONG)}
    audio, row = await recorded(app, "a=2Ffile.wav")
    assert (row.id, row.state, audio) == (made["UploadId"], "sealed", LONG)


async def test_the_minio_sdk_uploads_at_the_root(app, recorder):
    client = Minio(
        recorder.host, access_key=recorder.access_key, secret_key=recorder.secret_key, secure=False, region=REGION
    )

    def upload():
        assert client.bucket_exists(BUCKET)
        client.put_object(BUCKET, "minio", io.BytesIO(WAV), len(WAV), content_type="audio/wav")
        client.put_object(BUCKET, "parts.wav", io.BytesIO(LONG), -1, part_size=PART, content_type="audio/wav")

    await asyncio.to_thread(upload)
    assert await sealed(app, "minio") == WAV
    assert await sealed(app, "parts.wav") == LONG


async def test_curl_uploads_to_a_presigned_address(app, recorder, files):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for endpoint, key in ((recorder.endpoint, "below"), (recorder.url, "root")):
        address = recorder.boto(endpoint=endpoint, signature_version="s3v4").generate_presigned_url(
            "put_object", Params={"Bucket": BUCKET, "Key": key, "Metadata": {"from": "+442079460123"}}, ExpiresIn=60
        )
        ran = await run("curl", "-sSf", "-T", files / "short.wav", "-H", "x-amz-meta-from: +442079460123", address)
        assert ran.code == 0, ran.output
        assert await sealed(app, key) == WAV


async def test_curl_signs_by_itself_as_rtpengine_does_and_calls_its_audio_data(app, recorder, files):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    ran = await run(
        "curl", "-sSf", "--aws-sigv4", f"aws:amz:{REGION}:s3", "--user", f"{recorder.access_key}:{recorder.secret_key}",
        "-H", "Content-Type: application/data", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
        "-T", files / "short.wav", f"{recorder.endpoint}/{BUCKET}/rtpengine.wav",
    )  # fmt: skip
    assert ran.code == 0, ran.output
    assert await sealed(app, "rtpengine.wav") == WAV


async def test_a_presigned_address_carries_what_the_javascript_presigner_moves_into_its_query(app, recorder):
    meta = {"x-amz-meta-call-key": "call-1", "x-amz-meta-from": "+442079460123"}
    request = AWSRequest(method="PUT", url=f"{recorder.endpoint}/{BUCKET}/upload.wav?{urlencode(meta)}")
    S3SigV4QueryAuth(Credentials(recorder.access_key, recorder.secret_key), "s3", REGION, expires=60).add_auth(request)
    async with app.client.put(URL(request.url, encoded=True), data=WAV) as answer:
        assert answer.status == 200, await answer.text()
    _, row = await recorded(app, "call-1")
    call = (await app.ask("GET", f"/v1/recordings/{row.id}")).json["call"]
    assert (call["call_key"], call["caller"]) == ("call-1", "+442079460123")


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    server_name ~^(?<tenant>[a-z0-9-]+)\\.vault\\.test$;
    location / {{
      proxy_pass http://{vault}/s3/$tenant$request_uri;
      proxy_set_header Host $http_host;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      client_max_body_size 0;
    }}
  }}
}}
"""


async def test_a_bucket_in_the_hosts_name_comes_through_a_proxy(app, recorder, files, tmp_path, unused_tcp_port):
    for program in ("curl", "nginx"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=unused_tcp_port, vault=recorder.host))
    proxy = await asyncio.create_subprocess_exec("nginx", "-e", "/dev/null", "-c", tmp_path / "nginx.conf")
    try:
        address = recorder.boto(
            endpoint=f"http://vault.test:{unused_tcp_port}", addressing="virtual", signature_version="s3v4"
        ).generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "a b/call.wav"}, ExpiresIn=60)
        assert address.startswith(f"http://{BUCKET}.vault.test")
        ran = await run(
            "curl", "-sSf", "--retry", "9", "--retry-connrefused", "--retry-delay", "1",
            "--resolve", f"{BUCKET}.vault.test:{unused_tcp_port}:127.0.0.1", "-T", files / "short.wav", address,
        )  # fmt: skip
        assert ran.code == 0, ran.output
    finally:
        proxy.terminate()
        await proxy.wait()
    assert await sealed(app, "a=20b=2Fcall.wav") == WAV
    told = (await app.ask("GET", "/metrics", None)).body.decode()
    assert float(told.partition('callvault_ingest_bytes_total{dialect="s3"} ')[2].split()[0]) > 0


async def test_boto3_over_tls_sends_chunks_with_a_trailer_and_is_understood(tmp_path):
    with memory_directory() as base:
        write_certificate(base)
        async with running(base, server={**SETTINGS["server"], **FILES, "host": "localhost"}) as app:
            recorder = Recorder.of(app.url.replace("127.0.0.1", "localhost"), app.token(Role.RECORDER))
            modes = []

            def upload():
                client = recorder.boto(verify=str(base / "cert.pem"))
                client.meta.events.register("before-send.s3", lambda request, **_: modes.append(dict(request.headers)))
                client.put_object(Bucket=BUCKET, Key="whole.wav", Body=io.BytesIO(WAV))
                moved = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
                client.upload_fileobj(io.BytesIO(LONG), BUCKET, "parts.wav", Config=moved)
                client.close()

            await asyncio.to_thread(upload)
            named = {name.lower(): value for name, value in modes[0].items()}
            assert named["x-amz-content-sha256"] == b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
            for key, audio in (("whole.wav", WAV), ("parts.wav", LONG)):
                session = app.vault.ingest.live_call(BUCKET, key)
                if session is not None:
                    await session.done.wait()
                row = await app.vault.search.call(BUCKET, key)
                readable = await app.vault.playback.prepare(row, app.vault.keyring.derive(row.audio))
                read = app.vault.playback.read(readable, 0, readable.length)
                assert (row.state, b"".join([piece async for piece in read])) == ("sealed", audio)


async def test_facts_travel_as_metadata(app, recorder):
    meta = {
        "from": "+442079460123",
        "to": "+441632960100",
        "direction": "inbound",
        "started": "2026-11-25T01:00:00Z",
        "tags": "open-day, vip",
    }
    await asyncio.to_thread(recorder.boto().put_object, Bucket=BUCKET, Key="calls/1", Body=WAV, Metadata=meta)
    _, row = await recorded(app, "calls=2F1")
    shown = (await app.ask("GET", f"/v1/recordings/{row.id}")).json
    assert shown["started_at"].startswith("2026-11-25T01:00:00")
    call = shown["call"]
    assert (call["caller"], call["called"], call["direction"], call["tags"]) == (
        "+442079460123",
        "+441632960100",
        "inbound",
        ["open-day", "vip"],
    )
