"""rtpengine-recording's notifications, put on the wire by the library that the daemon uses."""

import asyncio
import base64
import hashlib
import io
import json
import re
import signal
import wave
from datetime import datetime

import pytest
from yarl import URL

from tests.helpers.app import sound
from tests.helpers.programs import run, running
from tests.helpers.rtpengine_files import FILE, KEY, STARTED, headers, notify
from tests.helpers.served import made, samples, vault, wav
from tests.helpers.server import TENANT
from tests.helpers.trail import audit_entries
from tests.transcripts import bytes_of

__all__ = ("made", "vault")


async def told(vault, *arguments, **changes):
    """Send one notification and return (status, answer)."""
    code, out, err = await run(*notify(vault, *arguments, **changes))
    assert code == 0, err
    body, _, status = out.decode().rpartition("\n")
    return int(status), json.loads(body) if body else None


async def answered(vault, request):
    """Send a whole request as it is and return the answer's status."""
    where = URL(vault.base)
    reader, writer = await asyncio.open_connection(where.host, where.port)
    writer.write(request)
    status = (await reader.readline()).split()[1]
    writer.close()
    await writer.wait_closed()
    return int(status)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / f"{FILE}-mix.wav"
    path.write_bytes(wav(sound(1_500_000)))
    return path


@pytest.mark.parametrize("version", ["12.5", "26.3"])
async def test_what_a_real_daemon_sent_is_recorded_once(vault, version):
    token = base64.b64encode(f"recorder:{vault.site.tokens['recorder']}".encode())
    sent = re.sub(rb"(?<=Basic )\S+", token, bytes_of(f"rtpengine-{version}.http"))
    file = sent[sent.index(b"RIFF") : sent.rindex(b"\r\n--")]
    for status in (201, 200):
        assert await answered(vault, sent) == status
        assert await vault.audio(KEY) == file
    with wave.open(io.BytesIO(await vault.played(KEY))) as played:
        assert (played.getnchannels(), played.getframerate(), played.getnframes()) == (2, 8_000, 320)
    assert (await vault.shown(KEY))["call"] == {
        "call_key": KEY,
        "caller": "+441632960001",
        "called": "+441632960100",
        "direction": "inbound",
        "tags": ["mixed"],
        "called_sent": "01632960100",
    }


@pytest.mark.parametrize("attached", ["ngfile=@", "ngfile=<"], ids=["filedata", "data"])
async def test_a_finished_file_is_recorded_with_its_facts(vault, file, attached):
    status, receipt = await told(vault, "-F", f"{attached}{file}")
    data = file.read_bytes()
    assert (status, receipt["sha256"]) == (201, hashlib.sha256(data).hexdigest())
    assert await vault.audio(KEY) == data
    assert samples(await vault.played(KEY)) == data[44:]
    shown = await vault.shown(KEY)
    assert (shown["call"]["caller"], shown["call"]["called"]) == ("+441632960001", "+441632960100")
    assert shown["call"]["tags"] == ["mixed"]
    assert datetime.fromisoformat(shown["started_at"]).timestamp() == pytest.approx(STARTED, abs=0.002)


async def test_the_same_file_sent_again_is_kept_once(vault, file):
    first = await told(vault, "-F", f"ngfile=@{file}")
    again = await told(vault, "-F", f"ngfile=@{file}", Call_End_Time=f"{STARTED + 65:.06f}")
    assert (first[0], again[0]) == (201, 200)
    assert first[1]["recording_id"] == again[1]["recording_id"]


async def test_two_files_of_one_call_are_two_recordings(vault, file):
    answers = [await told(vault, "-F", f"ngfile=@{file}", File_Name=f"{FILE}-{kind}.wav") for kind in ("a", "b")]
    assert [status for status, _ in answers] == [201, 201]
    assert answers[0][1]["recording_id"] != answers[1][1]["recording_id"]


async def broken_off(vault, file):
    """Send a file and kill its sender in the middle of it."""
    async with running(*notify(vault, "--limit-rate", "400k", "-F", f"ngfile=@{file}")) as curl:
        await vault.durable(KEY, 100_000)
        curl.signal(signal.SIGKILL)
        await curl.done()


async def test_a_file_that_was_broken_off_is_completed_by_its_retry(vault, file):
    await broken_off(vault, file)
    await vault.detached(KEY)
    status, receipt = await told(vault, "-F", f"ngfile=@{file}")
    assert (status, receipt["sha256"]) == (201, hashlib.sha256(file.read_bytes()).hexdigest())
    assert await vault.audio(KEY) == file.read_bytes()


async def test_a_retry_after_the_broken_file_was_closed_is_a_recording_of_its_own(vault, file):
    await broken_off(vault, file)
    await vault.detached(KEY)
    await vault.vault.ingest.truncate_all("server_shutdown", uploading=False)
    await vault.ends_as(KEY, "truncated")
    assert (await told(vault, "-F", f"ngfile=@{file}"))[0] == 201
    assert (await told(vault, "-F", f"ngfile=@{file}"))[0] == 200
    assert await vault.audio(f"{KEY}~2") == file.read_bytes()
    assert file.read_bytes().startswith(await vault.audio(KEY))


@pytest.mark.parametrize(
    ("status", "arguments", "changes"),
    [
        (401, (), {"token": "cv_no_such"}),
        (422, (), {"Call_ID": None}),
        (415, (), {"File_Format": "flac"}),
        (415, (), {"File_Format": "none"}),
    ],
)
async def test_a_notification_that_is_refused_for_its_headers_sends_no_file(vault, file, status, arguments, changes):
    ask = ("--expect100-timeout", "9", "-F", f"ngfile=@{file}", "-w", "\n%{http_code} %{size_upload}", *arguments)
    _, out, _ = await run(*notify(vault, *ask, **changes))
    assert out.split()[-2:] == [str(status).encode(), b"0"]


async def test_a_form_without_the_file_is_refused_and_keeps_nothing(vault, file):
    assert (await told(vault, "-F", f"other=@{file}"))[0] == 422
    assert not await vault.known(KEY)


async def test_a_form_that_ends_before_its_boundary_is_refused_and_stays_open_for_its_retry(vault, file):
    form = b'--b\r\nContent-Disposition: form-data; name="ngfile"\r\n\r\n' + file.read_bytes()[:200_000]
    sent = dict(word.split(": ", 1) for word in headers() if word != "-H")
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    async with vault.client.post(
        f"{vault.base}rtpengine", data=form, headers=vault.site.auth("recorder", **sent, **kind)
    ) as answer:
        assert answer.status == 422
    assert (await vault.head(KEY))[1] == "open"
    assert (await told(vault, "-F", f"ngfile=@{file}"))[0] == 201
    assert await vault.audio(KEY) == file.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "event"),
    [
        ((), None),
        (("-X", "POST", "-H", "Content-Length: 0"), "recording_finished"),
        (("-X", "POST", "-T", "/dev/null"), "call_recording_started"),
        (("-H", "Content-Type: application/json", "-d", '{"event":"recording_started"}'), "recording_started"),
    ],
    ids=["get", "post", "post-chunked", "json"],
)
async def test_an_event_without_a_file_is_audited_and_nothing_of_the_call_is_kept(vault, arguments, event):
    assert await told(vault, *arguments, Event=event) == (204, None)
    entries = await audit_entries(vault.vault.catalog, after=0, limit=1_000)
    noted = [each for each in entries if each.event.event == "recorder.event"]
    assert [each.event.detail for each in noted] == [{"dialect": "rtpengine", "event": event or "recording_finished"}]
    assert noted[0].event.tenant == TENANT
    assert "1-4242" not in repr(noted)
    assert not await vault.known(KEY)


async def test_bytes_are_counted_for_the_dialect(vault, file):
    await told(vault, "-F", f"ngfile=@{file}")
    async with vault.client.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    counted = [
        line.split()[-1] for line in lines if line.startswith('callvault_ingest_bytes_total{dialect="rtpengine"}')
    ]
    assert [float(each) for each in counted] == [file.stat().st_size]
