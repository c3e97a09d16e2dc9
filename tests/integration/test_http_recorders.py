"""Recorders that speak plain HTTP, as they are: curl, ffmpeg, GStreamer, and the one upload of FreeSWITCH's cache."""

import hashlib
import json
import signal

import pytest

from tests.helpers.app import sound
from tests.helpers.http_recorders import OPUS, TONE, gstreamer
from tests.helpers.programs import ffmpeg, run, running
from tests.helpers.recorder import until
from tests.helpers.served import made, samples, vault, wav
from tests.helpers.server import TENANT, bearer
from vault.errors import JournalFull

__all__ = ("made", "vault")

FAST = tuple(word for word in TONE if word != "-re")


async def seconds_of(data, tmp_path):
    """Let ffmpeg play a file and say how long it is."""
    (tmp_path / "played").write_bytes(data)
    code, out, err = await run(ffmpeg(), "-v", "error", "-i", tmp_path / "played", "-f", "s16le", "-ar", "8000", "-")
    assert code == 0, err
    return len(out) / 16_000


# -- curl -------------------------------------------------------------------------------------------------------


async def test_curl_streams_a_call_while_it_runs(vault):
    data = sound(40_000)
    async with running(*vault.curl("-f", "-T", "-", key="call")) as curl:
        await curl.feed(data[:16_000])
        await vault.durable("call", 16_000)
        assert await vault.head("call") == (16_000, "open", (await vault.head("call"))[2])
        await curl.feed(data[16_000:])
        code, out, err = await curl.done()
    assert code == 0, err
    receipt, _, figures = out.decode().rpartition("\n")
    assert figures.split()[0] == "201"
    assert json.loads(receipt)["sha256"] == hashlib.sha256(data).hexdigest()
    assert await vault.audio("call") == data


@pytest.mark.parametrize(
    ("status", "arguments", "changes"),
    [
        (401, (), {"token": "cv_no_such"}),
        (403, (), {"token": "agent"}),
        (413, (), {}),
        (415, (), {"media": "audio/flac"}),
        (422, ("-H", "Content-Range: bytes 5-1/*"), {}),
        (422, ("-H", "Upload-Offset: 5", "-H", "Content-Range: bytes 6-100005/*"), {}),
        (503, (), {}),
    ],
)
async def test_curl_that_is_refused_sends_no_audio(vault, tmp_path, status, arguments, changes):
    (tmp_path / "call").write_bytes(bytes(9 << 20 if status == 413 else 100_000))
    if changes.get("token") == "agent":
        changes = {"token": vault.site.tokens["agent"]}
    vault.vault.ingest.draining = status == 503
    ask = ("-f", "-H", "Expect: 100-continue", "--expect100-timeout", "9", "-T", tmp_path / "call", *arguments)
    code, out, _ = await run(*vault.curl(*ask, key="call", **changes))
    assert (code, out.decode().split()) == (22, [str(status), "0"])
    assert not await vault.known("call")


async def test_a_second_recorder_at_another_byte_is_told_where_to_go_on_before_it_sends(vault):
    async with running(*vault.curl("-T", "-", key="call")) as curl:
        await curl.feed(sound(5_000))
        await vault.durable("call", 5_000)
        curl.signal(signal.SIGKILL)
        await curl.done()
    ask = ("-H", "Upload-Offset: 7", "-H", "Expect: 100-continue", "--expect100-timeout", "9", "-d", "x" * 100, "-i")
    _, out, _ = await run(*vault.curl(*ask, key="call"))
    assert out.split()[-2:] == [b"409", b"0"]
    assert b"Upload-Offset: 5000\r\n" in out


async def test_a_killed_curl_leaves_a_truncated_recording_of_what_it_sent(vault):
    data = sound(24_000)
    async with running(*vault.curl("-T", "-", key="call")) as curl:
        await curl.feed(data)
        await vault.durable("call", len(data))
        curl.signal(signal.SIGKILL)
        assert (await curl.done())[0] == -signal.SIGKILL
    await vault.ends_as("call", "truncated")
    assert await vault.audio("call") == data
    assert len(samples(await vault.played("call"))) == 2 * len(data)


async def test_one_put_with_a_length_as_freeswitch_sends_it_answers_what_it_takes_for_success(vault, tmp_path):
    (tmp_path / "call.wav").write_bytes(data := wav(sound(32_000)))
    ask = ("-T", tmp_path / "call.wav", "-H", "Expect:")
    first = await run(*vault.curl(*ask, key="call.wav", media="audio/x-wav"))
    again = await run(*vault.curl(*ask, key="call.wav", media="audio/x-wav"))
    assert [first[1].split()[-2], again[1].split()[-2]] == [b"201", b"200"]
    assert await vault.audio("call.wav") == data
    (tmp_path / "call.wav").write_bytes(wav(sound(32_000, seed=2)))
    assert (await run(*vault.curl(*ask, key="call.wav", media="audio/x-wav")))[1].split()[-2] == b"409"


# -- ffmpeg -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        ("-f", "wav"),
        ("-f", "wav", "-method", "PUT"),
        ("-c:a", "libopus", "-f", "ogg"),
        ("-c:a", "libmp3lame", "-f", "mp3"),
    ],
    ids=["wav", "wav-put", "ogg", "mp3"],
)
async def test_ffmpeg_records_in_every_form_that_the_vault_keeps(vault, tmp_path, form):
    code, _, err = await run(ffmpeg(), *FAST, "-t", "2", *form, vault.url("call"))
    assert code == 0, err
    await vault.known_as("call", "sealed")
    played = await vault.played("call")
    assert await seconds_of(played, tmp_path) == pytest.approx(2, abs=0.2)
    if "wav" in form:
        assert (await vault.audio("call"))[4:8] == b"\xff\xff\xff\xff"  # it never went back to fill its sizes in
        assert len(samples(played)) == 32_000


async def test_ffmpeg_that_is_asked_to_stop_ends_its_recording(vault):
    async with running(ffmpeg(), *TONE, "-f", "wav", vault.url("call")) as recorder:
        await vault.durable("call", 4_000)
        recorder.signal(signal.SIGTERM)
        await recorder.done()
    size, _, _ = await vault.known_as("call", "sealed")
    assert len(samples(await vault.played("call"))) > 2_000
    assert size > 4_000


async def test_a_killed_ffmpeg_leaves_a_truncated_recording_that_plays(vault):
    async with running(ffmpeg(), *TONE, "-f", "wav", vault.url("call")) as recorder:
        await vault.durable("call", 4_000)
        recorder.signal(signal.SIGKILL)
        await recorder.done()
    await vault.known_as("call", "truncated")
    assert len(samples(await vault.played("call"))) > 2_000


# -- GStreamer --------------------------------------------------------------------------------------------------


async def test_gstreamer_that_sends_ogg_ends_its_recording_with_the_last_page(vault, tmp_path):
    code, _, err = await run(*gstreamer(vault, "call", OPUS, 5))
    assert code == 0, err
    await vault.known_as("call", "sealed")
    assert await seconds_of(await vault.played("call"), tmp_path) == pytest.approx(1, abs=0.1)


async def test_gstreamer_that_sends_wav_leaves_a_file_whose_sizes_are_right(vault):
    code, _, err = await run(*gstreamer(vault, "call", "wavenc ! ", 9))
    assert code == 0, err
    # The sink races with the end of its stream: what it has queued last, and with it the end, may never be sent.
    await until(lambda: vault.vault.ingest.live_call(TENANT, "call") is None)
    size, state, _ = await vault.head("call")
    assert state in ("sealed", "truncated")
    assert (await vault.audio("call"))[40:44] != (size - 44).to_bytes(4, "little")
    assert len(samples(await vault.played("call"))) == size - 44 >= 4 * 1_600 * 2


async def test_a_killed_gstreamer_leaves_a_truncated_recording_that_plays(vault, tmp_path):
    async with running(*gstreamer(vault, "call", OPUS, 500)) as recorder:
        await vault.durable("call", 1_500)
        recorder.signal(signal.SIGKILL)
        await recorder.done()
    await vault.known_as("call", "truncated")
    assert await seconds_of(await vault.played("call"), tmp_path) > 0.1


# -- pieces -----------------------------------------------------------------------------------------------------


OGG_HEAD = b"OggS\0\2" + bytes(20) + b"\1\1x"
OGG_END = b"OggS\0\4" + bytes(20) + b"\1\1x"


async def piece(vault, key, data, start, *, total="*", query="", media="audio/basic"):
    headers = bearer(vault.site.tokens["recorder"], **{"Content-Type": media})
    if start is not None:
        headers["Content-Range"] = f"bytes {start}-{start + len(data) - 1}/{total}"
    async with vault.client.put(f"{vault.base}{key}{query}", data=data, headers=headers) as answer:
        return answer.status, answer.headers.get("Upload-Offset"), await answer.json(content_type=None)


async def test_pieces_make_a_recording_that_the_last_one_ends(vault):
    data = sound(9_000)
    assert (await piece(vault, "call", data[:3_000], 0))[:2] == (202, "3000")
    assert (await piece(vault, "call", data[3_000:6_000], 3_000))[:2] == (202, "6000")
    status, _, receipt = await piece(vault, "call", data[6_000:], 6_000, total=9_000)
    assert (status, receipt["sha256"], receipt["state"]) == (201, hashlib.sha256(data).hexdigest(), "sealed")
    assert await vault.audio("call") == data


async def test_a_piece_that_comes_again_is_kept_once(vault):
    data = sound(6_000)
    await piece(vault, "call", data[:3_000], 0)
    await piece(vault, "call", data[3_000:5_000], 3_000)
    assert (await piece(vault, "call", data[3_000:6_000], 3_000))[:2] == (202, "6000")
    assert (await piece(vault, "call", data[3_000:6_000], 3_000))[:2] == (202, "6000")
    status, at, problem = await piece(vault, "call", data[:3_000], 3_000)
    assert (status, at, problem["title"]) == (409, "6000", "offset mismatch")
    await vault.ends_as("call", "truncated")
    assert await vault.audio("call") == data


@pytest.mark.parametrize("stored", [False, True])
async def test_the_last_piece_repeated_because_its_answer_was_lost_is_answered_as_done(vault, stored):
    data, other = sound(9_000), sound(3_000, seed=2)
    await piece(vault, "call", data[:6_000], 0)
    if not stored:
        await vault.vault.storer._sealing.acquire()  # the recording ends and stays in the journal
    status, _, receipt = await piece(vault, "call", data[6_000:], 6_000, total=9_000)
    assert (status, receipt["state"]) == (201, "sealed" if stored else "open")
    for start, total in ((6_000, 9_000), (6_000, "*"), (3_000, 9_000), (0, 9_000)):
        status, _, again = await piece(vault, "call", data[start:], start, total=total)
        assert (status, again["sha256"], again["bytes"]) == (200, hashlib.sha256(data).hexdigest(), 9_000)
    assert (await piece(vault, "call", other, 6_000, total=9_000))[0] == 409
    assert (await piece(vault, "call", other, 9_000))[0] == 409
    if not stored:
        vault.vault.storer._sealing.release()
    await vault.ends_as("call", "sealed")
    assert await vault.audio("call") == data


async def test_the_last_piece_of_a_stream_that_was_started_again_may_be_repeated(vault):
    first, second = (OGG_HEAD + sound(2_000, seed=seed) + OGG_END for seed in (1, 2))
    for data in (first, second):
        assert (await piece(vault, "call", data[:1_000], None, query="?append", media="audio/ogg"))[0] == 202
        for expected in (201, 200):
            assert (await piece(vault, "call", data[1_000:], 1_000, query="?append", media="audio/ogg"))[0] == expected
    await vault.ends_as("call~2", "sealed")
    assert await vault.audio("call~2") == second


async def test_a_piece_beyond_the_durable_end_is_refused_and_nothing_of_it_is_kept(vault):
    await piece(vault, "call", sound(100), 0)
    status, at, problem = await piece(vault, "call", sound(100), 500)
    assert (status, at, problem["offset"]) == (409, "100", 100)
    assert (await vault.head("call"))[0] == 100
    assert (await piece(vault, "other", sound(100), 500))[:2] == (409, "0")


async def test_a_recorder_that_appends_goes_on_after_a_refusal_and_its_recording_is_not_called_whole(vault):
    data = sound(9_000)
    assert (await piece(vault, "call", data[:3_000], None, query="?append"))[0] == 202
    assert (await piece(vault, "call", data[6_000:8_000], 6_000, query="?append"))[:2] == (202, "5000")
    status, _, receipt = await piece(vault, "call", data[8_000:], 8_000, total=9_000, query="?append")
    assert (status, receipt["state"]) == (201, "truncated")
    assert await vault.audio("call") == data[:3_000] + data[6_000:]


async def test_a_recorder_that_appends_and_was_refused_at_first_is_kept_from_then_on(vault, monkeypatch):
    data = sound(9_000)
    with monkeypatch.context() as full:
        full.setattr(vault.vault.journal, "refusal", lambda: JournalFull("no room"))
        assert (await piece(vault, "call", data[:3_000], None, query="?append"))[0] == 503
    assert (await piece(vault, "call", data[3_000:6_000], 3_000, query="?append"))[:2] == (202, "3000")
    status, _, receipt = await piece(vault, "call", data[6_000:], 6_000, total=9_000, query="?append")
    assert (status, receipt["state"]) == (201, "truncated")
    assert await vault.audio("call") == data[3_000:]


async def test_a_recorder_that_appends_and_was_away_too_long_goes_on_in_a_recording_of_its_own(vault):
    data = sound(9_000)
    assert (await piece(vault, "call", data[:3_000], None, query="?append"))[0] == 202
    await vault.ends_as("call", "truncated")
    assert (await piece(vault, "call", data[4_000:6_000], 4_000, query="?append"))[:2] == (202, "2000")
    assert (await piece(vault, "call", data[:3_000], 0, query="?append"))[0] == 409
    status, _, _ = await piece(vault, "call", data[6_000:], 6_000, total=9_000, query="?append")
    assert status == 201
    assert (await vault.audio("call"), await vault.audio("call~2")) == (data[:3_000], data[4_000:])


async def test_a_range_that_the_body_does_not_have_is_refused(vault):
    headers = bearer(vault.site.tokens["recorder"], **{"Content-Range": "bytes 0-99/*", "Content-Type": "audio/basic"})
    async with vault.client.put(f"{vault.base}call", data=b"short", headers=headers) as answer:
        assert answer.status == 422
    assert not await vault.known("call")


async def test_a_recorder_that_appends_from_the_start_again_begins_a_recording_of_its_own(vault):
    one, two = sound(4_000), sound(4_000, seed=2)
    for data in (one, two):
        assert (await piece(vault, "call", data[:1_000], None, query="?append"))[0] == 202
        assert (await piece(vault, "call", data[1_000:], 1_000, query="?append"))[0] == 202
    assert (await vault.audio("call"), await vault.audio("call~2")) == (one, two)


async def test_a_piece_that_comes_again_behind_a_gap_is_kept_once(vault):
    data = sound(6_000)
    await piece(vault, "call", data[:1_000], None, query="?append")
    for _ in range(2):
        assert (await piece(vault, "call", data[3_000:4_000], 3_000, query="?append"))[:2] == (202, "2000")
    assert (await piece(vault, "call", data[500:1_500], 2_500, query="?append"))[0] == 409
    await vault.ends_as("call", "truncated")
    assert await vault.audio("call") == data[:1_000] + data[3_000:4_000]
