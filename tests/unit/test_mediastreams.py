"""What the machine makes of the messages in Twilio's and Telnyx's documentation, and of others.

Twilio: "Media Streams - WebSocket Messages". Telnyx: "Stream call media over WebSocket" (AsyncAPI specification).
"""

import base64
import json

import pytest

from tests.transcripts import transcript
from vault.errors import Invalid, UnsupportedMedia
from vault.model import Codec, Container, Media
from vault.protocol.facts.parties import read_parties
from vault.protocol.live.events import MOST, Audio, Broken, Dtmf, Ended, Gap, Handshake, LeftOut, Started
from vault.protocol.live.media_streams import recognise_media_stream
from vault.protocol.live.recognise import recognise

TWILIO = transcript("twilio")
TELNYX = transcript("telnyx")
ENDED = Ended(clean=True, reason="stop")


def machine(*, query=None, first=TWILIO[0]):
    return recognise(Handshake(query=query or {}), first)


def said(messages, **how):
    stream = machine(first=messages[0], **how)
    return [event for message in messages for event in stream.receive(message)]


def audio(events):
    return b"".join(event.data for event in events if isinstance(event, Audio))


def changed(message, **members):
    """Return the message with members of its own object replaced; None takes one out."""
    told = json.loads(message)
    for name, value in members.items():
        told[told["event"]][name] = value
        if value is None:
            del told[told["event"]][name]
    return json.dumps(told)


def media(track, chunk, timestamp, payload):
    inner = {
        "track": track,
        "chunk": str(chunk),
        "timestamp": str(timestamp),
        "payload": base64.b64encode(payload).decode(),
    }
    return json.dumps({"event": "media", "media": inner})


def opened(**start):
    stream = machine()
    stream.receive(TWILIO[0])
    stream.receive(changed(TWILIO[1], **start))
    return stream


def test_a_twilio_call_is_told_as_its_documentation_has_it():
    events = said(TWILIO)
    started = events[0]
    assert isinstance(started, Started)
    assert started.call_key == "CA0123456789abcdef0123456789abcdef"
    assert started.token == "cv_secret"
    assert started.media == Media(
        container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=2, channel_map=("caller", "callee")
    )
    facts = read_parties(started.facts)
    assert (facts.caller, facts.called, facts.direction) == ("+441632960001", "+441632960100", "outbound")
    assert facts.tags == ("admissions", "open-day")
    assert started.facts.extra == {
        "callSid": "CA0123456789abcdef0123456789abcdef",
        "streamSid": "MZ0123456789abcdef0123456789abcdef",
        "accountSid": "AC0123456789abcdef0123456789abcdef",
        "FirstName": "Jane",
    }
    # Forty samples are five milliseconds; inbound is left.
    assert audio(events) == b"\xff\xff" * 40 + b"\x10\x00\x11\x01\x12\x02\x13\x03"
    assert [event for event in events if isinstance(event, Dtmf)] == [Dtmf(digit="1")]
    assert events[-1] == ENDED


def test_a_telnyx_call_is_told_as_its_documentation_has_it_and_put_in_order():
    events = said(TELNYX)
    started = events[0]
    assert started.call_key == "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ"
    assert started.token == "cv_secret"
    assert started.media.channel_map == ("caller", "callee")
    facts = read_parties(started.facts)
    assert (facts.caller, facts.called, facts.tags) == ("+13122010094", "+13122123456", ("TAG1", "TAG2"))
    assert facts.extra == {
        "call_control_id": "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ",
        "call_session_id": "ff55a038-6f5d-11ef-9692-02420aeffb1f",
        "user_id": "3E6F995F-85F7-4705-9741-53B116D28237",
        "client_state": "aGF2ZSBhIG5pY2UgZGF5ID1d",
        "customer_id": "customer_123",
    }
    caller = b"\x10\x11\x12\x13" + b"\xff" * 160
    callee = b"\xff" * 160 + b"\x00\x01\x02\x03"
    assert audio(events) == bytes(sample for pair in zip(caller, callee, strict=True) for sample in pair)
    assert events[-1] == ENDED


@pytest.mark.parametrize(("messages", "name"), [(TWILIO, "twilio"), (TELNYX, "telnyx")])
def test_each_dialect_is_recognised_by_its_first_message(messages, name):
    assert machine(first=messages[0]).name == name


@pytest.mark.parametrize(
    "first",
    [
        b'{"event":"connected"}',
        "{",
        '{"event":"websocket:connected","content-type":"audio/l16;rate=16000"}',
        '{"version":"2","type":"open"}',
        '["connected"]',
        '{"event":["connected"]}',
        '{"event":"start"}',
    ],
)
def test_what_others_say_first_is_not_theirs(first):
    assert recognise_media_stream(Handshake(), first) is None


@pytest.mark.parametrize("messages", [TWILIO, TELNYX])
def test_no_token_is_kept_among_the_facts_or_shown(messages):
    started = said(messages)[0]
    assert "cv_secret" not in repr(started.facts) + repr(dict(started.facts.extra))
    assert "cv_secret" not in repr(started)


@pytest.mark.parametrize("messages", [TWILIO, TELNYX])
@pytest.mark.parametrize("state", [0, 1, 2, 7])
def test_a_message_that_the_state_does_not_permit_is_refused(messages, state):
    """States: nothing said, connected, started, stopped."""
    permitted = {0: {"connected"}, 1: {"start"}, 2: {"media", "dtmf", "stop", "connected", "start"}, 7: set()}[state]
    for message in messages:
        event = json.loads(message)["event"]
        stream = machine(first=messages[0])
        for before in messages[:state]:
            stream.receive(before)
        if event in permitted or event in {"mark", "error"}:
            stream.receive(message)
        else:
            with pytest.raises(Invalid, match="not permitted"):
                stream.receive(message)


@pytest.mark.parametrize(
    "message",
    [
        b"{}",
        "",
        "[]",
        '{"event":7}',
        changed(TWILIO[2], track="both"),
        changed(TWILIO[2], track=["inbound"]),
        changed(TWILIO[2], track=None),
        changed(TWILIO[2], chunk=None),
        changed(TWILIO[2], chunk="-1"),
        changed(TWILIO[2], chunk="\u0661"),
        changed(TWILIO[2], chunk="1_0"),
        changed(TWILIO[2], chunk=True),
        changed(TWILIO[2], chunk=1.5),
        changed(TWILIO[2], timestamp="9" * 16),
        changed(TWILIO[2], timestamp=10**15),
        changed(TWILIO[2], timestamp=""),
        changed(TWILIO[2], payload="AAECAw="),
        changed(TWILIO[2], payload="AA ECAw=="),
        changed(TWILIO[2], payload="\xff"),
        changed(TWILIO[2], payload=7),
        '{"event":"media"}',
        '{"event":"media","media":[]}',
        '{"event":"dtmf","dtmf":"1"}',
    ],
)
def test_a_malformed_message_is_left_out_and_the_call_goes_on(message):
    stream = opened()
    held = stream.receive(TWILIO[2])
    assert not held  # the other track may still come
    [left_out] = stream.receive(message)
    assert isinstance(left_out, LeftOut)
    events = [*stream.receive(TWILIO[3]), *stream.receive(TWILIO[-1])]
    assert audio(events) == b"\xff\xff" * 40 + b"\x10\x00\x11\x01\x12\x02\x13\x03"
    assert events[-1] == ENDED


def test_a_storm_of_malformed_messages_ends_the_call_and_what_came_before_it_is_not_lost():
    stream = opened()
    stream.receive(TWILIO[2])
    for _ in range(MOST):
        stream.receive(changed(TWILIO[2], payload="AAEC!"))
    with pytest.raises(Invalid, match=f"more than {MOST} frames could not be read .*payload") as refused:
        stream.receive(changed(TWILIO[2], payload="AAEC!"))
    assert "AAEC" not in str(refused.value)
    events = stream.closed(1008)
    assert audio(events)[81::2] == b"\x00\x01\x02\x03"
    assert events[-1] == Ended(clean=False, reason="closed")


def test_as_many_malformed_messages_as_sound_ones_are_no_storm():
    stream = opened(tracks=["inbound"])
    for number in range(20 * MOST):
        assert audio(stream.receive(media("inbound", number + 1, 20 * number, b"a" * 160))) == b"a" * 160
        stream.receive("{")


def test_what_cannot_be_read_before_the_call_is_known_is_passed_over_as_often_as_what_is_not_known():
    stream = machine()
    stream.receive(TWILIO[0])
    for each in ("", b"{}", "[]", '{"event":7}'):
        assert not stream.receive(each)
    assert isinstance(stream.receive(TWILIO[1])[0], Started)


@pytest.mark.parametrize("messages", [TWILIO, TELNYX])
def test_a_beginning_that_is_repeated_is_left_out_and_the_call_goes_on(messages):
    stream = machine(first=messages[0])
    stream.receive(messages[0])
    stream.receive(messages[1])
    for again in messages[:2]:
        assert stream.receive(again) == (LeftOut(Broken.ORDER),)
    assert audio([each for message in messages[2:] for each in stream.receive(message)])


@pytest.mark.parametrize("parameters", ["x", ["from"], 7])
def test_parameters_that_are_no_object_are_left_out_and_the_call_is_taken(parameters):
    started = said((TWILIO[0], changed(TWILIO[1], customParameters=parameters)))[0]
    assert started.facts.unusable == {"customParameters": "value"}
    assert started.call_key == "CA0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(("end", "reason"), [("idle", "idle"), ("closed", "closed")])
def test_without_a_stop_what_waits_comes_out_and_the_end_is_not_clean(end, reason):
    stream = opened(tracks=["inbound"])
    first = stream.receive(media("inbound", 1, 0, b"a" * 160))
    assert not stream.receive(media("inbound", 3, 40, b"c" * 160))
    last = stream.idle() if end == "idle" else stream.closed(None)
    assert audio([*first, *last]) == b"a" * 160 + b"\xff" * 160 + b"c" * 160
    assert last[-1] == Ended(clean=False, reason=reason)
    assert list(stream.closed(1006)) == []
    assert list(stream.closing_messages()) == []


@pytest.mark.parametrize("messages", [0, 1])
def test_a_connection_that_never_said_which_call_it_is_ends_without_a_recording(messages):
    stream = machine()
    for message in TWILIO[:messages]:
        stream.receive(message)
    assert not [*stream.idle(), *stream.closed(1000)]


def test_one_track_is_kept_as_it_is():
    stream = opened(tracks=["outbound"])
    assert audio(stream.receive(media("outbound", 1, 0, b"a" * 160))) == b"a" * 160
    assert stream.receive(media("inbound", 1, 0, b"a" * 160)) == (LeftOut(Broken.TRACK),)


def test_tracks_that_are_none_cost_no_audio():
    for tracks in ([], "sideways", ["inbound", "third"], [["inbound"]], [1], {"inbound": 1}):
        stream = machine()
        stream.receive(TWILIO[0])
        (started,) = stream.receive(changed(TWILIO[1], tracks=tracks))
        assert (started.media.channels, started.facts.unusable) == (2, {"tracks": "value"}), tracks
        assert audio([*stream.receive(media("inbound", 1, 0, b"a" * 160)), *stream.closed(None)])[::2] == b"a" * 160
    for tracks in ("inbound", ["inbound_track"]):
        assert opened(tracks=tracks).waiting() == 0


def test_a_piece_that_comes_twice_or_too_late_is_told():
    stream = opened(tracks=["inbound"])
    first, second, third = (media("inbound", number, 20 * (number - 1), b"a" * 160) for number in (1, 2, 3))
    assert audio([*stream.receive(first), *stream.receive(third)])
    assert stream.receive(third) == (LeftOut(Broken.LATE),)
    assert len(audio(stream.receive(second))) == 320
    for _ in range(2 * MOST):
        assert stream.receive(second) == (LeftOut(Broken.LATE),), "a network that repeats itself is no storm"


def test_a_start_that_repeats_itself_or_is_not_quite_json_is_read():
    start = json.dumps({"event": "start", "start": {**json.loads(TWILIO[1])["start"], "customParameters": {}}})
    start = start.replace('"customParameters": {}', '"customParameters": {"from": "1", "from": "2", "x": NaN}')
    stream = machine()
    stream.receive(TWILIO[0])
    (started,) = stream.receive(start)
    assert started.facts.caller == "1"
    assert started.facts.unusable == {"from": "repeated", "others": "value"}


@pytest.mark.parametrize(
    ("tracks", "channels"), [(None, 2), ("both_tracks", 2), ("inbound_track", 1), ("outbound", 1), ("both", 2)]
)
@pytest.mark.parametrize("place", ["address", "parameter"])
def test_telnyx_calls_have_both_tracks_unless_the_configuration_says_which(tracks, channels, place):
    configured = {} if tracks is None else {"tracks": tracks}
    start = changed(TELNYX[1], custom_parameters=configured if place == "parameter" else {})
    events = said((TELNYX[0], start), query=configured if place == "address" else {})
    assert events[0].media.channels == channels


@pytest.mark.parametrize(
    ("encoding", "rate", "order", "codec", "silence"),
    [
        ("PCMU", 8000, None, Codec.PCMU, b"\xff"),
        ("PCMA", "8000", None, Codec.PCMA, b"\xd5"),
        ("L16", 16000, None, Codec.S16LE, b"\0\0"),
        ("L16", 24000, "be", Codec.S16BE, b"\0\0"),
    ],
)
def test_every_encoding_is_kept_as_it_comes_and_filled_with_its_own_silence(encoding, rate, order, codec, silence):
    form = {"encoding": encoding, "sample_rate": rate, "channels": 1}
    start = changed(TELNYX[1], media_format=form, custom_parameters={"tracks": "inbound"})
    piece = b"\x01\x02" * (int(rate) // 100 * len(silence))
    events = said(
        (TELNYX[0], start, media("inbound", 1, 0, piece), media("inbound", 3, 40, piece), TELNYX[-1]),
        query={"byteorder": order} if order else {},
    )
    kept = events[0].media
    assert (kept.codec, kept.rate, kept.channels) == (codec, int(rate), 1)
    assert audio(events) == piece + silence * (int(rate) // 50) + piece


@pytest.mark.parametrize(
    "form",
    [
        {"encoding": "G722", "sample_rate": 16000, "channels": 1},
        {"encoding": "OPUS", "sample_rate": 48000, "channels": 1},
        {"encoding": "PCMU", "sample_rate": 8000, "channels": 2},
        {"encoding": ["PCMU"], "sample_rate": 8000, "channels": 1},
        {"encoding": "PCMU", "sample_rate": 1, "channels": 1},
        {"encoding": "PCMU", "channels": 1},
        {},
        None,
        "PCMU",
    ],
)
def test_audio_that_cannot_be_played_is_refused_with_what_to_set(form):
    with pytest.raises((Invalid, UnsupportedMedia)):
        said((TELNYX[0], changed(TELNYX[1], media_format=form)))


def test_half_a_sample_is_left_out():
    form = {"encoding": "L16", "sample_rate": 16000, "channels": 1}
    events = said((TELNYX[0], changed(TELNYX[1], media_format=form), media("inbound", 1, 0, b"abc")))
    assert events[1:] == [LeftOut(Broken.PAYLOAD)]


def test_parameters_outrank_what_the_recorder_says():
    custom = {"call_key": "matter-17", "from": "1001", "to": "+441632960100", "direction": "inbound", "tags": "vip"}
    started = said((TELNYX[0], changed(TELNYX[1], custom_parameters=custom)))[0]
    facts = read_parties(started.facts)
    assert started.call_key == "matter-17"
    assert (facts.caller, facts.called, facts.direction) == ("1001", "+441632960100", "inbound")
    assert facts.tags == ("TAG1", "TAG2", "vip")


def test_what_cannot_be_kept_of_a_call_is_left_out_and_the_call_is_taken():
    odd = {
        "long": "x" * 201,
        "bell": "\a",
        "surrogate": "\ud800",
        "n" * 201: "x",
        "api_token": "cv_other",
        "callSid": "another",
        "direction": "sideways",
        "tags": ["x"],
        "from": [],
        **{f"more{number}": "x" for number in range(200)},
    }
    facts = said((TWILIO[0], changed(TWILIO[1], customParameters=odd)))[0].facts
    assert len(facts.extra) == 50
    assert facts.extra["callSid"] == "CA0123456789abcdef0123456789abcdef"
    assert not {"long", "bell", "surrogate", "api_token", "direction", "tags"} & set(facts.extra)
    assert (facts.caller, facts.direction) == (None, None)


def test_a_call_without_any_name_or_token_says_so():
    started = said((TWILIO[0], changed(TWILIO[1], callSid=None, customParameters=None)))[0]
    assert (started.call_key, started.token) == (None, None)


def test_unknown_events_are_ignored_but_not_for_ever_before_the_call_is_known():
    stream = machine()
    stream.receive(TWILIO[0])
    assert not any(stream.receive('{"event":"weather"}') for _ in range(16))
    with pytest.raises(Invalid, match="which call"):
        stream.receive('{"event":"weather"}')
    stream = opened()
    assert not any(stream.receive('{"event":"weather"}') for _ in range(1_000))


@pytest.mark.parametrize("digit", [None, "", "12", 1, "x"])
def test_a_key_that_is_none_is_passed_over(digit):
    assert not opened().receive(changed(TWILIO[4], digit=digit))


def test_the_address_may_say_who_calls_where_the_recorder_does_not():
    query = {"from": "+441632960001", "direction": "inbound", "call_key": "x", "token": "cv_secret"}
    start = changed(TELNYX[1], **{"from": None})
    started = said((TELNYX[0], start), query=query)[0]
    assert (started.facts.caller, started.facts.direction) == ("+441632960001", "inbound")
    assert "cv_secret" not in repr(started.facts.extra)


def test_an_empty_payload_says_nothing():
    assert not opened(tracks=["inbound"]).receive(media("inbound", 1, 0, b""))


def test_time_that_was_left_out_is_told():
    stream = opened(tracks=["inbound"])
    stream.receive(media("inbound", 1, 0, b"a" * 160))
    events = stream.receive(media("inbound", 2, 60_020, b"b" * 160))
    assert list(events) == [Gap(missing_ms=60_000), Audio(b"b" * 160)]


def test_no_garbage_ends_a_call():
    for garbage in ("[" * 100_000, '{"a":' * 2_000, "9" * 5_000, '"\ud800"', '{"event":{}}'):
        assert opened().receive(garbage) == (LeftOut(Broken.FORM),)
