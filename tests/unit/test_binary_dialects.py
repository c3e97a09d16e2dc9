"""Recorders that send bare samples over WebSocket: recognised, read, and refused in words they can use."""

import time

import pytest

from tests.helpers.websocket_recorders import ASTERISK, AUDIO_STREAM, JAMBONZ, RECORDERS, VONAGE, l16, samples, text
from vault.errors import Invalid, Refused, UnsupportedMedia
from vault.ids import call_key_of
from vault.model import Codec
from vault.protocol.facts.parties import read_parties
from vault.protocol.live.events import Audio, Dtmf, Ended, Handshake, Started
from vault.protocol.live.recognise import recognise
from vault.server.problems import close_code

EVERY = pytest.mark.parametrize("recorder", RECORDERS.values(), ids=RECORDERS)
PLAIN = Handshake()


def hear(messages, handshake=PLAIN):
    """Return the machine that the first message calls for, and all that it says."""
    machine = recognise(handshake, messages[0])
    return machine, [event for message in messages for event in machine.receive(message)]


def started(first, handshake=PLAIN):
    _, events = hear([first], handshake)
    return events[0]


def refused(first, handshake=PLAIN):
    """Return the words with which a connection is closed."""
    with pytest.raises(Refused) as caught:
        hear([first], handshake)
    code, reason = close_code(caught.value)
    assert code == 1008
    assert reason.decode() == caught.value.message, "the reason does not fit into a close frame"
    return caught.value


def kept(events):
    return b"".join(event.data for event in events if isinstance(event, Audio))


@EVERY
def test_a_real_recorder_is_recognised_and_nothing_of_its_audio_is_lost(recorder):
    machine, events = hear(recorder.messages, recorder.handshake)
    assert machine.name == recorder.dialect
    assert isinstance(events[0], Started)
    assert events[0].media == recorder.media
    assert (events[0].call_key or recorder.query["call_key"]) == recorder.key
    assert kept(events) == recorder.audio
    assert not machine.closing_messages(), "nothing is ever sent to these recorders"


def test_a_frame_that_has_begun_is_told_to_wait_whole():
    machine = recognise(JAMBONZ.handshake, JAMBONZ.first[0])
    assert machine.waiting() == 0
    machine.receive(JAMBONZ.first[0])
    machine.receive(b"abcde")
    assert machine.waiting() == 4
    assert kept(machine.receive(b"fgh")) == b"efgh"
    assert machine.waiting() == 0


@EVERY
def test_a_real_recorder_tells_who_called_whom(recorder):
    facts = read_parties(started(recorder.messages[0], recorder.handshake).facts)
    assert (facts.caller, facts.called, facts.direction) == (recorder.caller, recorder.called, recorder.direction)


@EVERY
def test_keys_pressed_are_told_and_other_texts_are_passed_over(recorder):
    _, events = hear(recorder.messages, recorder.handshake)
    assert [(event.digit, event.duration_ms) for event in events if isinstance(event, Dtmf)] == list(recorder.digits)
    assert {type(event) for event in events} <= {Started, Audio, Dtmf}


@EVERY
@pytest.mark.parametrize(
    ("code", "clean"),
    [(1000, True), (1005, True), (0, True), (1001, False), (1006, False), (1011, False), (4000, False), (None, False)],
)
def test_only_a_normal_close_is_a_clean_end(recorder, code, clean):
    machine, _ = hear(recorder.messages, recorder.handshake)
    (ended,) = machine.closed(code)
    assert isinstance(ended, Ended)
    assert ended.clean is clean
    assert not machine.closed(code), "the end is told once"


@EVERY
def test_silence_is_no_end(recorder):
    machine, _ = hear(recorder.messages, recorder.handshake)
    assert not machine.idle()


@pytest.mark.parametrize("recorder", [JAMBONZ, AUDIO_STREAM])
def test_an_empty_message_ends_a_fork_gracefully_and_once(recorder):
    machine, _ = hear(recorder.messages, recorder.handshake)
    assert machine.receive(b"") == (Ended(clean=True, reason="the recorder said so"),)
    assert not machine.closed(1000)
    with pytest.raises(Invalid):
        machine.receive(b"\0\0")


@pytest.mark.parametrize("recorder", [ASTERISK, VONAGE])
def test_an_empty_message_means_nothing_elsewhere(recorder):
    machine, _ = hear(recorder.messages, recorder.handshake)
    assert not machine.receive(b"")
    assert [type(event) for event in machine.closed(1000)] == [Ended]


def test_a_sample_cut_in_two_is_put_together_and_an_unfinished_one_is_not_kept():
    audio = samples(6)
    _, events = hear([JAMBONZ.first[0], audio[:3], audio[3:4], audio[4:9], audio[9:], b"\1\2\3"])
    assert kept(events) == audio
    assert all(len(event.data) % 4 == 0 for event in events if isinstance(event, Audio))


# -- what is said about a call ---------------------------------------------------------------------------------------


def test_the_rest_of_the_metadata_is_kept_and_nothing_secret():
    extra = started(JAMBONZ.first[0]).facts.extra
    assert extra["callId"] == "b1a7c9a0-2f1e-123d-5b8e-0a1b2c3d4e5f"
    assert extra["sipStatus"] == "200"
    assert extra["customerData.campaign"] == "spring"
    assert not any("never-kept" in value for value in extra.values())
    assert not {"sampleRate", "mixType", "from", "to", "direction"} & set(extra)


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "api_key",
        "API-Key",
        "password",
        "clientSecret",
        "Authorization",
        "ws_auth",
        "Set-Cookie",
        "X-Signature",
    ],
)
def test_whatever_is_named_like_a_credential_is_left_out(name):
    facts = started(text(sampleRate=8000, uuid="u", **{name: "hush"}, nested={name: {"deep": "hush"}})).facts
    assert facts.extra == {"uuid": "u"}


def test_facts_are_bounded_in_number_length_and_depth():
    many = {f"n{number}": number for number in range(500)}
    assert len(started(text(sampleRate=8000, **many)).facts.extra) == 50
    deep = {"a": {"b": {"c": {"d": "in"}}}, "e": {"f": {"g": {"h": {"i": "out"}}}}}
    wild = {"long": "x" * 201, "line": "a\nb", "half": "\ud800", "x" * 101: "name", "nothing": None, "yes": True}
    assert started(text(sampleRate=8000, **deep, **wild, list=[1, 2.5])).facts.extra == {
        "a.b.c.d": "in",
        "yes": "true",
        "list.0": "1",
        "list.1": "2.5",
    }


@pytest.mark.parametrize("value", ["", "x" * 201, "\x07", True, None, ["+441632960001"], {"user": "1"}])
def test_a_number_that_is_none_does_not_cost_the_call(value):
    assert started(text(sampleRate=8000, **{"from": value}, direction="sideways")).facts.caller is None


def test_a_number_without_quotes_is_one():
    assert read_parties(started(text(sampleRate=8000, **{"from": 441632960001})).facts).caller == "+441632960001"


def test_a_call_is_named_by_the_first_name_that_it_has_whatever_its_characters():
    assert started(text(sampleRate=8000, callSid="", callId="x!1@[::1]")).call_key == "x=211@=5B::1=5D"
    assert started(text(sampleRate=8000, callId="a" * 201)).call_key == call_key_of("a" * 201)
    assert started(text(sampleRate=8000, callSid=7)).call_key == "7"
    assert started(text(sampleRate=8000, callSid=True, uuid=["u"])).call_key is None
    assert started(text(sampleRate=8000, callSid="\ud83d")).call_key == "=ED=A0=BD"


def test_vonages_token_is_a_credential_and_no_fact():
    said = started(text(event="websocket:connected", **{"content-type": "audio/l16;rate=8000"}, token="hush", uuid="u"))
    assert said.token == "hush"
    assert said.media == l16(8000, 1)
    assert "hush" not in repr(said)
    assert "hush" not in str(said.facts.extra)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("ulaw", Codec.PCMU, 8000),
        ("alaw", Codec.PCMA, 8000),
        ("slin", Codec.S16LE, 8000),
        ("slin12", Codec.S16LE, 12000),
        ("slin44", Codec.S16LE, 44100),
        ("slin192", Codec.S16LE, 192000),
    ],
)
def test_asterisks_formats(name, codec, rate):
    media = started(f"MEDIA_START connection_id:c channel:WebSocket/c/0x1 channel_id:1.2 format:{name}").media
    assert (media.codec, media.rate, media.channels) == (codec, rate, 1)


def test_an_older_asterisk_names_no_call():
    """20.16 to 20.17 send neither channel_id nor ptime: the address has to name the call."""
    assert (
        started("MEDIA_START connection_id:c channel:WebSocket/c/0x1 format:ulaw optimal_frame_size:160").call_key
        is None
    )


@pytest.mark.parametrize(
    ("query", "media"),
    [
        ({"rate": "8000"}, l16(8000, 1)),
        ({"rate": "48000", "channels": "2"}, l16(48000, 2)),
    ],
)
def test_audio_without_any_metadata_is_what_the_address_says(query, media):
    machine, events = hear([samples(4)], Handshake(query=query))
    assert machine.name == "audio_stream"
    assert events == [Started(call_key=None, media=media), Audio(samples(4))]


@pytest.mark.parametrize(("codec", "expected"), [("pcmu", Codec.PCMU), ("alaw", Codec.PCMA), ("L16be", Codec.S16BE)])
def test_the_address_may_name_a_codec(codec, expected):
    assert started(b"\0\0\0\0", Handshake(query={"rate": "8000", "codec": codec})).media.codec is expected


def test_metadata_outranks_the_address():
    query = {"rate": "8000", "channels": "2", "from": "100"}
    said = started(text(sampleRate=16000, mixType="mono", **{"from": "200"}), Handshake(query=query))
    assert said.media == l16(16000, 1)
    assert said.facts.caller == "200"


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        "",
        "hello",
        b"\0\0",
        "{}",
        "[]",
        "null",
        '{"event":"start"}',
        '{"sampleRate":8000',
    ],
)
def test_what_no_recorder_says_is_refused_with_what_to_do(first):
    error = refused(first)
    assert isinstance(error, Invalid)
    assert "?call_key=" in error.message


def test_a_first_text_is_read_as_far_as_it_goes_and_the_rest_is_noted():
    said = {
        "vonage": '"event":"websocket:connected","content-type":"audio/l16;rate=16000","call_uuid":"c"',
        "jambonz": '"sampleRate":8000,"sampleRate":16000,"callSid":"c","callSid":"d"',
        "asterisk": '"event":"MEDIA_START","format":"ulaw","channel_id":"c"',
    }
    for name, members in said.items():
        first = started(
            f'{{{members},"from":"201","from":"202","to":NaN,"direction":"inbound","queue":{{"a":1,"a":2}}}}'
        )
        assert (first.call_key, first.facts.caller, first.facts.called) == ("c", "201", None), name
        assert first.facts.direction == "inbound"
        assert first.facts.unusable == {"from": "repeated", "to": "value", "others": "repeated"}, name
    assert started('{"sampleRate":8000,"sampleRate":16000,"callSid":"c"}').media.rate == 8000
    assert started('{"sampleRate":8000,"callSid":"c","callSid":"c"}').facts.unusable == {}
    long = started(text(sampleRate=8000, callSid="c", filler="x" * (1 << 17), **{"from": "201"}))
    assert (long.facts.caller, long.facts.unusable) == ("201", {"others": "text"})


def test_a_first_text_costs_as_much_as_it_is_long_whatever_nests_in_it():
    for unit in ("[[[[]]]],", "{},", '"a":NaN,'):
        begun = '{"event":"websocket:connected","content-type":"audio/l16;rate=16000","uuid":"c",'
        within = unit * ((1 << 17) // len(unit))
        began = time.thread_time()
        assert started(begun + (within if '"' in unit else f'"x":[{within}0],') + '"y":1}').call_key == "c"
        assert time.thread_time() - began < 2, unit


def test_a_first_text_that_cannot_be_read_costs_the_facts_alone_and_says_so():
    handshake = Handshake(query={"rate": "8000", "call_key": "c"})
    for first in ('{"from":"201"', '{"a":' * 100_000, '{"from":"201","x":%s}' % ("9" * 5_000)):
        said = started(first, handshake)
        assert (said.facts.caller, said.facts.unusable) == (None, {"others": "form"})
        assert "begins like JSON but is not JSON" in refused(first).message
        assert "begins like JSON but is not JSON" in refused(first, JAMBONZ.handshake).message
    assert started("hello", handshake).facts.unusable == {}


def test_more_text_than_fits_into_a_message_is_not_read():
    filler = "x" * (1 << 18)
    assert "no known protocol" in refused(f"{ASTERISK.first[0]} {filler}").message


def test_a_rate_without_a_fraction_is_a_count():
    assert started(text(sampleRate=8000.0)).media.rate == 8000


@pytest.mark.parametrize("rate", [True, -8000, -8000.0, 1.5, 1e300, "8k", "", "9" * 10, [], {}])
def test_a_rate_that_is_no_count_is_refused(rate):
    assert "sampleRate" in refused(text(sampleRate=rate)).message


@pytest.mark.parametrize("rate", [3_999, 192_001, 10**9])
def test_a_rate_that_cannot_be_played_is_refused(rate):
    assert "rate" in refused(text(sampleRate=rate)).message


@pytest.mark.parametrize("mix", ["surround", "", 2, ["stereo"]])
def test_another_mix_is_refused(mix):
    assert "stereo" in refused(text(sampleRate=8000, mixType=mix)).message


@pytest.mark.parametrize(
    "query", [{"rate": "fast"}, {"rate": "8000", "channels": "0"}, {"rate": "8000", "codec": "opus"}]
)
def test_an_address_that_makes_no_sense_is_refused(query):
    refused(b"\0\0", Handshake(query=query))


def test_a_fork_without_a_rate_is_told_where_to_put_it():
    fork = Handshake(subprotocols=("audio.drachtio.org",))
    assert "?rate=8000" in refused(text(uuid="u"), fork).message
    assert "?rate=8000" in refused("not json", fork).message
    assert "text" in refused(b"\0\0", fork).message


@pytest.mark.parametrize("name", ["opus", "g722", "slin17", ""])
def test_a_format_that_cannot_be_kept_is_refused_with_those_that_can(name):
    error = refused(f"MEDIA_START connection_id:c channel:c channel_id:1.2 format:{name} optimal_frame_size:0 ptime:20")
    assert isinstance(error, UnsupportedMedia)
    assert "c(ulaw), c(alaw), c(slin)" in error.message


@pytest.mark.parametrize("declared", ["audio/l16", "audio/opus", "audio/PCMU;rate=8000", "", 16000, None])
def test_another_content_type_than_vonages_is_refused(declared):
    refused(text(event="websocket:connected", **{"content-type": declared}, uuid="u"))


@pytest.mark.parametrize("later", ["{", "hello", '{"event":"dtmf"}', '{"event":"dtmf","dtmf":"12"}', "x" * 100_000])
def test_a_later_text_that_is_not_understood_costs_nothing(later):
    machine, _ = hear(JAMBONZ.first)
    assert not machine.receive(later)


@pytest.mark.parametrize("duration", [None, "long", -1, True, 1.5, 10**12])
def test_a_key_is_told_without_a_duration_that_makes_no_sense(duration):
    for machine, said in (
        (hear(JAMBONZ.first)[0], text(event="dtmf", dtmf="d", duration=duration)),
        (hear(VONAGE.first)[0], text(event="websocket:dtmf", digit="d", duration=duration)),
    ):
        assert machine.receive(said) == (Dtmf(digit="D"),)
