"""kill -9 of the server and of the client in the middle of S3 uploads, and an object store that is dead throughout."""

import asyncio
import os
import random
from dataclasses import replace
from functools import partial

import pytest
from botocore.exceptions import ClientError
from prometheus_client import CollectorRegistry

from tests.helpers.crashing import ManualClock
from tests.helpers.recorder import until
from tests.helpers.s3clients import HEAD, Recorder, rclone, rclone_command
from tests.helpers.server import TENANT, in_process, log_lines, make_site, session, zygote
from tests.helpers.stores import Fault, install
from tests.helpers.wire import audio
from vault.errors import Unavailable
from vault.services.ingest.ingest import Ingest
from vault.services.ingest.slots import Shares
from vault.services.uploads.parts import Parts
from vault.services.uploads.spooling import SPOOL
from vault.storage.spool import FileSpool
from vault.telemetry import Metrics
from vault.wiring.journals import recover_journal

PART = 300_000


def recorder_of(site, url):
    return Recorder.of(url, site.tokens["recorder"])


class Client:
    """A recorder that goes on with its upload wherever the server was killed."""

    def __init__(self, site, process, seed):
        self.random = random.Random(seed)
        self.pieces = {n: (HEAD if n == 1 else b"") + self.random.randbytes(PART + n) for n in range(1, 5)}
        self.site, self.process, self.seed = site, process, seed
        self.etags = {}
        self.server = process.start(site)
        self.upload = {"Bucket": TENANT, "Key": f"call {seed}.wav"}

    @property
    def boto(self):
        return recorder_of(self.site, self.server.url).boto()

    def again(self):
        assert self.server.kill() == -9
        self.server = self.process.start(self.site)

    async def send(self, number):
        sent = await asyncio.to_thread(
            self.boto.upload_part, **self.upload, PartNumber=number, Body=self.pieces[number]
        )
        self.etags[number] = sent["ETag"]

    async def complete(self):
        parts = [{"PartNumber": number, "ETag": self.etags[number]} for number in sorted(self.etags)]
        await asyncio.to_thread(self.boto.complete_multipart_upload, **self.upload, MultipartUpload={"Parts": parts})

    async def run(self):
        """Upload, and kill the server after the start, between parts, while they are put together and thereafter."""
        made = await asyncio.to_thread(self.boto.create_multipart_upload, **self.upload)
        self.upload["UploadId"] = made["UploadId"]
        self.again()
        for number in (3, 1, 4, 2):
            await self.send(number)
            if number in (3, 4):
                self.again()
        for _ in range(2):
            attempt = asyncio.create_task(self.complete())
            await asyncio.sleep(self.random.uniform(0.005, 0.06))
            self.again()
            await asyncio.gather(attempt, return_exceptions=True)
        await self.complete()
        self.again()
        await self.complete()

    async def check(self):
        async with session(self.server) as client:
            assert await audio(client, self.site, f"call=20{self.seed}.wav") == b"".join(self.pieces.values())
        places = self.site.config.spool_path
        await until(lambda: not list(places.iterdir()))
        defects = [line for line in log_lines(self.site) if not isinstance(line, dict) or line["level"] == "error"]
        assert not defects


async def test_an_upload_goes_on_with_what_was_acknowledged_wherever_the_server_is_killed(tmp_path):
    site = await make_site(tmp_path, server={"upload_grace": "1h"}, segments={"max_age": "200ms"})
    with zygote() as process:
        client = Client(site, process, 7)
        await client.run()
        await client.check()


async def test_a_client_that_is_killed_leaves_a_truncated_recording_of_its_parts(tmp_path):
    site = await make_site(tmp_path, server={"upload_grace": "1s"}, segments={"max_age": "200ms"})
    content = HEAD + random.Random(5).randbytes(18 << 20)
    (tmp_path / "long.wav").write_bytes(content)
    async with in_process(site) as (vault, url):
        recorder = recorder_of(site, url)
        copy = ("copyto", tmp_path / "long.wav", f"vault:{TENANT}/killed.wav", "--s3-upload-cutoff=5M")
        command, environment = rclone_command(
            recorder, *copy, "--s3-chunk-size=5M", "--s3-upload-concurrency=1", "--bwlimit=12M"
        )
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        await until(lambda: len(list(site.config.spool_path.glob("rec_*/?????"))) == 2)
        process.kill()
        assert await process.wait() == -9
        live = vault.ingest.live_call(TENANT, "killed.wav")
        ran = await rclone(recorder, *copy)
        assert ran.code == 0, ran.output
        async with asyncio.timeout(10):
            await live.done.wait()
        row = await vault.catalog.recording(live.recording.id)
        assert (row.state, row.state_reason) == ("truncated", "recorder_gone")
        assert row.stored_bytes in (2 * (5 << 20), 3 * (5 << 20))
        readable = await vault.playback.prepare(row, vault.keyring.derive(row.audio))
        kept = b"".join([piece async for piece in vault.playback.read(readable, 0, readable.length)])
        assert kept == content[: row.stored_bytes]
        assert (await vault.objects.find(TENANT, "killed.wav")).size == len(content)


async def test_an_object_store_that_is_dead_for_the_whole_upload_is_not_noticed(tmp_path, monkeypatch):
    opened = install(monkeypatch)
    site = await make_site(tmp_path, segments={"max_age": "200ms"})
    body = HEAD + random.Random(3).randbytes(6 << 20)
    (tmp_path / "call.wav").write_bytes(body)
    async with in_process(site) as (vault, url):
        opened[-1].fault = Fault.LOST
        recorder = recorder_of(site, url)
        client = recorder.boto(attempts=1)
        await asyncio.to_thread(client.put_object, Bucket=TENANT, Key="whole", Body=body)
        made = await asyncio.to_thread(client.create_multipart_upload, Bucket=TENANT, Key="parts.wav")
        upload = {"Bucket": TENANT, "Key": "parts.wav", "UploadId": made["UploadId"]}
        sent = await asyncio.to_thread(client.upload_part, **upload, PartNumber=1, Body=body)
        parts = {"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]}
        await asyncio.to_thread(client.complete_multipart_upload, **upload, MultipartUpload=parts)
        await until(lambda: opened[-1].refused > 0)
        sessions = [vault.ingest.live_call(TENANT, key) for key in ("whole", "parts.wav")]
        assert [each.ended for each in sessions] == ["sealed", "sealed"]
        opened[-1].fault = Fault.NONE
        async with asyncio.timeout(20):
            for each in sessions:
                await each.done.wait()


async def test_a_part_that_meets_another_node_is_told_to_come_again_and_nothing_is_lost(tmp_path):
    site = await make_site(tmp_path)
    (tmp_path / "second").mkdir(mode=0o700)
    journal = {**site.document["journal"], "path": str(tmp_path / "second")}
    other = replace(site, document={**site.document, "journal": journal})
    with zygote() as process:
        here, there = (recorder_of(each, process.start(each).url).boto(attempts=0) for each in (site, other))
        made = await asyncio.to_thread(here.create_multipart_upload, Bucket=TENANT, Key="call.wav")
        upload = {"Bucket": TENANT, "Key": "call.wav", "UploadId": made["UploadId"]}
        sent = await asyncio.to_thread(here.upload_part, **upload, PartNumber=1, Body=HEAD + b"x" * 900)
        parts = {"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]}
        for attempt in (
            partial(there.upload_part, **upload, PartNumber=2, Body=HEAD),
            partial(there.complete_multipart_upload, **upload, MultipartUpload=parts),
            partial(there.abort_multipart_upload, **upload),
        ):
            with pytest.raises(ClientError) as caught:
                await asyncio.to_thread(attempt)
            assert caught.value.response["Error"]["Code"] == "SlowDown"
        await asyncio.to_thread(here.complete_multipart_upload, **upload, MultipartUpload=parts)


async def test_the_parts_of_a_node_that_is_gone_are_in_what_is_recovered_from_its_journal(tmp_path):
    site = await make_site(tmp_path)
    pieces = [HEAD + b"one" * 1_000, b"two" * 1_000]
    async with in_process(site) as (vault, url):
        client = recorder_of(site, url).boto()
        made = await asyncio.to_thread(client.create_multipart_upload, Bucket=TENANT, Key="lost.wav")
        upload = {"Bucket": TENANT, "Key": "lost.wav", "UploadId": made["UploadId"]}
        for number, piece in enumerate(pieces, 1):
            await asyncio.to_thread(client.upload_part, **upload, PartNumber=number, Body=piece)
    settled = await recover_journal(site.config, site.config.journal_path, progress=lambda *_: None)
    assert (settled.recordings, settled.files_left) == (1, 0)
    assert not list(site.config.spool_path.iterdir())
    async with in_process(site) as (vault, _):
        row = await vault.catalog.recording(made["UploadId"])
        assert (row.state, row.state_reason, row.stored_bytes) == ("truncated", "node_recovered", 6_000 + len(HEAD))


# -- an abort that does not come to its end -------------------------------------------------------------------------

STEPS = {
    "the audit entry": (Parts, "_keep_everything"),
    "the note of what is kept aside": (Ingest, "write"),
    "the pieces": (Ingest, "finish"),
}


async def everything(vault, identifier):
    """Return an ended recording's row, its audio and its parts kept aside."""
    async with asyncio.timeout(10):
        while (row := await vault.catalog.recording(identifier)).state == "open":
            await asyncio.sleep(0.02)
    found = await vault.playback.finished(row)

    async def read(start, end):
        return b"".join([piece async for piece in vault.playback.read(found, start, end)])

    return row, await read(0, found.length), [await read(part.start, part.end) for part in found.aside]


@pytest.mark.parametrize("step", STEPS)
async def test_an_abort_that_crashed_ends_truncated_with_every_acknowledged_byte(tmp_path, monkeypatch, step):
    site = await make_site(tmp_path, server={"upload_grace": "300ms"}, segments={"max_age": "200ms"})
    pieces = {number: bytes([number]) * 9_000 for number in (1, 2, 4)}

    async def crashed(*_, **__):
        raise Unavailable("it crashed here")

    with monkeypatch.context() as patch:
        patch.setattr(*STEPS[step], crashed)
        async with in_process(site) as (vault, url):
            client = recorder_of(site, url).boto(attempts=0)
            made = await asyncio.to_thread(client.create_multipart_upload, Bucket=TENANT, Key="gone.wav")
            upload = {"Bucket": TENANT, "Key": "gone.wav", "UploadId": made["UploadId"]}
            for number, piece in pieces.items():
                await asyncio.to_thread(client.upload_part, **upload, PartNumber=number, Body=piece)
            with pytest.raises(ClientError, match="SlowDown"):
                await asyncio.to_thread(client.abort_multipart_upload, **upload)
    async with in_process(site) as (vault, _):
        row, audio, aside = await everything(vault, made["UploadId"])
        assert row.state == "truncated"
        assert audio == pieces[1] + pieces[2]
        assert aside == [pieces[4]]


async def test_an_abort_is_killed_anywhere_and_every_acknowledged_byte_is_there(tmp_path):
    site = await make_site(tmp_path, server={"upload_grace": "2s"}, segments={"max_age": "200ms"})
    with zygote() as process:
        client = Client(site, process, 11)
        made = await asyncio.to_thread(client.boto.create_multipart_upload, **client.upload)
        client.upload["UploadId"] = made["UploadId"]
        for number in (1, 2, 4):
            await client.send(number)
        boto = recorder_of(site, client.server.url).boto(attempts=0)
        attempt = asyncio.create_task(asyncio.to_thread(boto.abort_multipart_upload, **client.upload))
        await asyncio.sleep(0.02)
        client.again()
        await asyncio.gather(attempt, return_exceptions=True)
        await until(lambda: not list(site.config.spool_path.iterdir()))
    async with in_process(site) as (vault, _):
        row, audio, aside = await everything(vault, made["UploadId"])
        assert row.state == "truncated"
        assert audio == client.pieces[1] + client.pieces[2]
        assert aside == [client.pieces[4]]


async def test_a_list_of_parts_that_was_begun_and_given_up_loses_nothing(tmp_path, monkeypatch):
    site = await make_site(tmp_path, segments={"max_age": "200ms"})
    pieces = {number: bytes([number]) * 9_000 for number in (1, 2, 3)}
    finish = Ingest.finish

    async def crashed(*_, **__):
        raise Unavailable("it crashed here")

    async with in_process(site) as (vault, url):
        client = recorder_of(site, url).boto(attempts=0)
        made = await asyncio.to_thread(client.create_multipart_upload, Bucket=TENANT, Key="other.wav")
        upload = {"Bucket": TENANT, "Key": "other.wav", "UploadId": made["UploadId"]}
        etags = {}
        for number, piece in pieces.items():
            sent = await asyncio.to_thread(client.upload_part, **upload, PartNumber=number, Body=piece)
            etags[number] = sent["ETag"]
        monkeypatch.setattr(Ingest, "finish", crashed)
        parts = {"Parts": [{"PartNumber": 2, "ETag": etags[2]}]}
        with pytest.raises(ClientError, match="SlowDown"):
            await asyncio.to_thread(client.complete_multipart_upload, **upload, MultipartUpload=parts)
        monkeypatch.setattr(Ingest, "finish", finish)
        await asyncio.to_thread(client.abort_multipart_upload, **upload)
        _, audio, aside = await everything(vault, made["UploadId"])
        assert audio == pieces[2]
        assert aside == [pieces[1] + pieces[3], *pieces.values()]


async def test_a_part_that_is_damaged_in_the_spool_takes_no_other_with_it(tmp_path):
    site = await make_site(tmp_path, segments={"max_age": "200ms"})
    pieces = {number: os.urandom(40_000) for number in (1, 2, 3)}
    async with in_process(site) as (vault, url):
        client = recorder_of(site, url).boto(attempts=0)
        made = await asyncio.to_thread(client.create_multipart_upload, Bucket=TENANT, Key="hurt.wav")
        upload = {"Bucket": TENANT, "Key": "hurt.wav", "UploadId": made["UploadId"]}
        for number, piece in pieces.items():
            await asyncio.to_thread(client.upload_part, **upload, PartNumber=number, Body=piece)
        damaged = site.config.spool_path / made["UploadId"] / "00002"
        content = bytearray(damaged.read_bytes())
        content[100] ^= 1
        damaged.write_bytes(content)
        await asyncio.to_thread(client.abort_multipart_upload, **upload)
        _, audio, aside = await everything(vault, made["UploadId"])
        assert audio == pieces[1]
        assert aside == [pieces[1], pieces[3]]


# -- the spool itself -----------------------------------------------------------------------------------------------

RECORDING = "rec_" + "0" * 32


def spool_at(path, **changes):
    room = Shares(1 << 20, SPOOL, clock=ManualClock(), metrics=Metrics(CollectorRegistry()))
    return FileSpool(path / "parts", **{"room": room, "disk_reserve_bytes": 0, "entropy": os.urandom, **changes})


async def kept(spool, number, data, version=0):
    file = await spool.begin(RECORDING, number, tenant=TENANT)
    await file.append(data)
    await file.keep(version)
    await file.close()


async def test_what_was_begun_and_not_kept_is_removed_from_the_disk(tmp_path):
    spool = spool_at(tmp_path)
    await spool.prepare(RECORDING)
    await kept(spool, 1, b"first")
    await kept(spool, 1, b"again and longer", version=1)
    abandoned = await spool.begin(RECORDING, 2, tenant=TENANT)
    await abandoned.append(b"never kept")
    scratch = await spool.scratch(tenant=TENANT)
    await scratch.append(b"nameless")
    await spool_at(tmp_path).kept()
    assert [each.name for each in (tmp_path / "parts").iterdir()] == [RECORDING]
    assert sorted(each.name for each in (tmp_path / "parts" / RECORDING).iterdir()) == ["00001", "00001-1"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
async def test_a_part_that_could_not_be_made_durable_leaves_the_one_before(tmp_path, monkeypatch, call):
    spool = spool_at(tmp_path)
    await spool.prepare(RECORDING)
    await kept(spool, 1, b"first")

    def fails(*_):
        raise OSError(5, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else type(tmp_path), call, fails)
        file = await spool.begin(RECORDING, 1, tenant=TENANT)
        await file.append(b"second")
        with pytest.raises(Unavailable):
            await file.keep(1)
        await file.close()
    assert await spool.kept() == {RECORDING: {(1, 0): 5}}
    assert spool.room.uses == {TENANT: 5}


async def test_parts_of_a_finished_recording_are_dropped_and_those_of_an_unknown_one_are_kept(tmp_path):
    site = await make_site(tmp_path)
    places = site.config.spool_path
    async with in_process(site) as (vault, url):
        client = recorder_of(site, url).boto()
        await asyncio.to_thread(client.put_object, Bucket=TENANT, Key="whole", Body=HEAD + b"x" * 900)
        made = await asyncio.to_thread(client.create_multipart_upload, Bucket=TENANT, Key="open.wav")
        upload = {"Bucket": TENANT, "Key": "open.wav", "UploadId": made["UploadId"]}
        await asyncio.to_thread(client.upload_part, **upload, PartNumber=1, Body=HEAD)
        await asyncio.to_thread(client.upload_part, **upload, PartNumber=2, Body=b"will be damaged")
        whole = await vault.search.call(TENANT, "whole")
    for name in (whole.id, RECORDING):
        (places / name).mkdir()
        (places / name / "00001").write_bytes(b"left behind")
    damaged = places / made["UploadId"] / "00002"
    kept = damaged.read_bytes()
    damaged.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    async with in_process(site) as (vault, url):
        assert sorted(each.name for each in places.iterdir()) == sorted([made["UploadId"], RECORDING])
        assert (places / RECORDING / "00001").read_bytes() == b"left behind"
        client = recorder_of(site, url).boto()
        listed = await asyncio.to_thread(client.list_parts, **upload)
        assert [each["PartNumber"] for each in listed["Parts"]] == [1]
        assert vault.ingest.live_call(TENANT, "open.wav").grace.total_seconds() == 3600
        # Each tenant has what lies there of its own, and nobody what lies there of an unknown one.
        own = sum(each.stat().st_size for each in (places / made["UploadId"]).iterdir())
        assert vault.parts._shares.uses == {TENANT: own, "": len(b"left behind")}
