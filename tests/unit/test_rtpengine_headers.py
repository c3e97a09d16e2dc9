"""Notifications as recording-daemon/notify.c words them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from vault.errors import Invalid, UnsupportedMedia, VaultError
from vault.ids import parse_call_key
from vault.protocol.facts.parties import read_parties
from vault.protocol.uploads.multipart import event_name, notification

SENT = {
    "X-Recording-Call-ID": "1-4242@192.0.2.7",
    "X-Recording-File-Name": "1-4242%40192.0.2.7-1c07bd2c44bfb1c9-mix.wav",
    "X-Recording-Full-File-Name": "/var/lib/rtpengine-recording/1-4242%40192.0.2.7-1c07bd2c44bfb1c9-mix.wav",
    "X-Recording-File-Format": "wav",
    "X-Recording-Kind": "mixed",
    "X-Recording-Call-Start-Time": "1772357400.123456",
    "X-Recording-Stream-Start-Time": "1772357401.000000",
    "X-Recording-Call-End-Time": "1772357460.500000",
    "X-Recording-Stream-End-Time": "1772357460.500000",
    "X-Recording-Call-Metadata": "from:+441632960001|to:01632960100|queue:admissions|note",
}


def told(**changes):
    names = {f"X-Recording-{name.replace('_', '-')}": value for name, value in changes.items()}
    merged = {**SENT, **names}
    return notification(CIMultiDict({name: value for name, value in merged.items() if value is not None}))


def test_a_notification_is_read_as_the_daemon_meant_it():
    found = told()
    assert found.call_key == "1-4242@192.0.2.7~1-4242@192.0.2.7-1c07bd2c44bfb1c9-mix.wav"
    assert found.content_type == "audio/wav"
    assert found.started_at == datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)
    facts = read_parties(found.facts)
    assert (facts.caller, facts.called) == ("+441632960001", "+441632960100")
    assert found.facts.tags == ("mixed",)
    assert found.facts.extra == {
        "rtpengine.queue": "admissions",
        "rtpengine.call_id": SENT["X-Recording-Call-ID"],
        "rtpengine.file_name": SENT["X-Recording-File-Name"],
    }
    assert facts.unusable == {}


def test_what_cannot_be_used_of_the_metadata_is_noted():
    latin = told(Call_Metadata="from:J\udcfcrgen|to:" + "1" * 201 + "|queue:" + "q" * 201 + "|desk:4").facts
    assert (latin.caller, latin.called, latin.extra.get("rtpengine.desk")) == ("J\u00fcrgen", None, "4")
    assert latin.unusable == {"to": "text", "queue": "text"}
    assert told(Call_Metadata="|".join(f"k{number}:v" for number in range(21))).facts.unusable == {"metadata": "many"}


def test_a_name_that_no_call_key_can_have_becomes_a_hash_of_its_own():
    names = [
        told(Call_ID="a/b").call_key,
        told(Call_ID="a", File_Name="b/c.wav").call_key,
        told(Call_ID="a~b", File_Name="c").call_key,
        told(Call_ID="a", File_Name="b~c").call_key,
        told(Call_ID="a", File_Name="b@c").call_key,
        told(Call_ID="a", File_Name="b%2fc").call_key,
        told(Call_ID="a", File_Name="b%2Fc").call_key,
        told(Call_ID="a", File_Name="b%FFc").call_key,
        told(Call_ID="a", File_Name="b%c").call_key,
        told(Call_ID="x" * 150, File_Name="y" * 150).call_key,
    ]
    assert len(set(names)) == len(names)
    assert all(parse_call_key(name).startswith("rtpengine~") for name in names)
    assert told(Call_ID="a", File_Name="b%40c").call_key == "a~b@c"


def test_a_call_whose_name_is_a_hash_still_tells_its_call_id():
    assert told(Call_ID="a/b").facts.extra["rtpengine.call_id"] == "a/b"


@pytest.mark.parametrize("name", ["Call_ID", "File_Name"])
@pytest.mark.parametrize("value", [None, "", " "])
def test_a_file_without_a_name_or_a_call_is_refused(name, value):
    with pytest.raises(Invalid):
        told(**{name: value})


@pytest.mark.parametrize(
    ("changes", "content_type"),
    [
        ({"File_Format": "mp3"}, "audio/mpeg"),
        ({"File_Format": None, "File_Name": "a.MP3"}, "audio/mpeg"),
        (
            {"File_Format": "pcm", "Sample_Rate": "16000", "Channels": "2"},
            "audio/L16;rate=16000;channels=2;byteorder=le",
        ),
    ],
)
def test_the_file_format_says_what_the_audio_is(changes, content_type):
    assert told(**changes).content_type == content_type


@pytest.mark.parametrize("changes", [{"File_Format": "flac"}, {"File_Format": "none"}])
def test_a_format_that_cannot_be_played_is_refused(changes):
    with pytest.raises(UnsupportedMedia):
        told(**changes)


def test_samples_of_a_rate_that_there_cannot_be_are_kept_as_a_telephones():
    for rate in (None, "0", "8k", "3999", "192001", "9" * 30):
        found = told(File_Format="pcm", Sample_Rate=rate, Channels="2")
        assert found.content_type == "audio/L16;rate=8000;channels=2;byteorder=le"
        assert found.facts.unusable == {"Sample-Rate": "value"}
    found = told(File_Format="pcm", Sample_Rate="16000", Channels="17")
    assert (found.content_type, found.facts.unusable) == (
        "audio/L16;rate=16000;channels=1;byteorder=le",
        {"Channels": "value"},
    )
    assert not told(File_Format="pcm", Sample_Rate="16000").facts.unusable


def test_of_metadata_that_repeat_a_name_the_first_counts():
    facts = told(Call_Metadata="from:201|from:202|to:1|to:1").facts
    assert (facts.caller, facts.called, facts.unusable) == ("201", "1", {"from": "repeated"})


@pytest.mark.parametrize("time", ["0.000000", "", "yesterday", "-1.5", "1e9", "9" * 20])
def test_a_time_that_is_none_is_left_out(time):
    found = told(Call_Start_Time=time, Stream_Start_Time=time)
    assert found.started_at is None
    assert found.facts.unusable == ({"started": "value"} if time.strip("0.") else {})


def test_without_a_start_of_the_call_the_stream_has_one():
    assert told(Call_Start_Time="0.000000").started_at == datetime(2026, 3, 1, 9, 30, 1, tzinfo=UTC)


def test_events_are_known_by_name_and_nothing_else_is_repeated():
    assert event_name({}) == "recording_finished"
    assert event_name({"X-Recording-Event": "call_recording_started"}) == "call_recording_started"
    assert event_name({"X-Recording-Event": "+441632960001"}) == "unknown"


@given(headers=st.dictionaries(st.sampled_from(sorted(SENT)), st.text(max_size=300)))
def test_any_headers_give_a_notification_or_a_vault_error(headers):
    try:
        found = notification(CIMultiDict({**SENT, **headers}))
    except VaultError:
        return
    parse_call_key(found.call_key)
    assert len(found.facts.extra) <= 25
