import pytest

from vault.errors import Invalid
from vault.ids import call_key_of
from vault.model import CallFacts, Codec, Container, Media
from vault.protocol.live.events import Audio, Ended, Started
from vault.protocol.live.streams import ORDERLY, RtpengineTcp

HASHED = call_key_of("a" * 500)


def machine(rate=8000, channels=1):
    return RtpengineTcp(rate=rate, channels=channels)


def introduced(text, **settings):
    started, *_ = machine(**settings).receive(text + b"\0" + bytes(2 * settings.get("channels", 1)))
    return started


def test_the_text_before_the_samples_tells_the_call():
    started = introduced(b"call_key:call-7|caller:+442079460000|called:+442079460001|direction:inbound|queue:night")
    assert started == Started(
        call_key="call-7",
        media=Media(container=Container.RAW, codec=Codec.S16LE, rate=8000, channels=1),
        facts=CallFacts(caller="+442079460000", called="+442079460001", direction="inbound", extra={"queue": "night"}),
    )


def test_a_frame_that_has_begun_is_told_to_wait_whole():
    stream = machine(channels=2)
    stream.receive(b"call")
    assert stream.waiting() == 0
    stream.receive(b"-7\0" + b"abcde")
    assert stream.waiting() == 4
    assert stream.receive(b"fgh") == (Audio(b"efgh"),)
    assert stream.waiting() == 0


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b"", None),
        (b"queue:night", None),
        (b"call-7", "call-7"),
        (b"callid:a1b2@192.0.2.1|x:y", "a1b2@192.0.2.1"),
        (b"call-id:a/b?c=d", "a=2Fb=3Fc=3Dd"),
        (b"call_id:" + b"a" * 180, "a" * 180),
        (b"call_id:" + b"a" * 500, HASHED),
        (b"a" * 500, HASHED),
        (b"call_key:\xff", "=FF"),
    ],
)
def test_a_call_id_becomes_a_call_key_that_stands_for_it_alone(text, key):
    assert introduced(text).call_key == key


def test_samples_are_the_same_however_the_network_cuts_them():
    samples = bytes(range(200))
    whole = machine(channels=2).receive(b"call-7\0" + samples)
    cut = machine(channels=2)
    single = [event for byte in b"call-7\0" + samples for event in cut.receive(bytes([byte]))]
    assert whole[0] == single[0]
    assert whole[1] == Audio(samples)
    assert b"".join(event.data for event in single[1:]) == samples
    assert all(len(event.data) % 4 == 0 for event in single[1:])


def test_the_settings_say_what_the_stream_does_not():
    media = introduced(b"", rate=16000, channels=2).media
    assert (media.rate, media.channels) == (16000, 2)


def test_a_close_between_samples_is_the_end():
    stream = machine()
    stream.receive(b"\0abcd")
    assert stream.closed(ORDERLY) == (Ended(clean=True, reason="closed"),)
    assert stream.closed(ORDERLY) == ()
    with pytest.raises(Invalid):
        stream.receive(b"ab")


@pytest.mark.parametrize(("more", "code"), [(b"a", ORDERLY), (b"ab", None)])
def test_a_close_within_a_sample_and_a_broken_connection_are_no_ends(more, code):
    stream = machine()
    stream.receive(b"\0ab" + more)
    assert stream.closed(code) == (Ended(clean=False, reason="connection_lost"),)


def test_a_connection_without_its_text_or_without_samples_records_nothing():
    stream = machine()
    assert stream.receive(b"call_key:call-7") == ()
    assert stream.closed(ORDERLY) == ()
    stream = machine()
    assert stream.receive(b"call_key:call-7\0a") == ()
    assert stream.closed(ORDERLY) == ()


def test_a_text_without_an_end_is_refused():
    stream = machine()
    for _ in range(8):
        assert stream.receive(b"x" * 1_024) == ()
    with pytest.raises(Invalid):
        stream.receive(b"x")
