import pytest

from tests.helpers.hook_recorders import CALL, UUID_FRAME, audio, frame
from vault.errors import Invalid
from vault.model import Codec, Container, Media
from vault.protocol.live.events import MOST, Audio, Broken, Dtmf, Ended, LeftOut, Started
from vault.protocol.live.streams import ORDERLY, AudioSocket


def started(first=b"\1\2"):
    machine = AudioSocket()
    events = machine.receive(UUID_FRAME + audio(first))
    assert isinstance(events[0], Started)
    return machine, events


@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        (0x10, 8000),
        (0x11, 12000),
        (0x12, 16000),
        (0x13, 24000),
        (0x14, 32000),
        (0x15, 44100),
        (0x16, 48000),
        (0x17, 96000),
        (0x18, 192000),
    ],
)
def test_the_first_audio_tells_the_rate(kind, rate):
    machine = AudioSocket()
    assert machine.receive(UUID_FRAME) == []
    media = Media(container=Container.RAW, codec=Codec.S16LE, rate=rate, channels=1)
    assert machine.receive(audio(b"\0\1", kind)) == [Started(call_key=CALL, media=media), Audio(b"\0\1")]
    assert machine.receive(audio(b"\0\1", 0x10 if kind != 0x10 else 0x11)) == [LeftOut(Broken.TRACK)]


def test_a_frame_that_has_begun_is_told_to_wait_with_all_of_its_audio():
    machine, _ = started()
    assert machine.waiting() == 0
    whole = audio(b"late")
    machine.receive(whole[:2])
    assert machine.waiting() == 0, "its size is not known yet, and none of its audio came"
    for byte in whole[2:-1]:
        machine.receive(bytes([byte]))
    assert machine.waiting() == 4
    assert machine.receive(whole[-1:]) == [Audio(b"late")]
    assert machine.waiting() == 0
    machine.receive(frame(0x03, b"4")[:-1])
    assert machine.waiting() == 0


def test_frames_are_the_same_however_the_network_cuts_them():
    wire = UUID_FRAME + b"".join(audio(bytes([n, n])) for n in range(50)) + frame(0x03, b"5") + audio(b"zz") + frame(0)
    whole = AudioSocket().receive(wire)
    machine = AudioSocket()
    single = [event for byte in wire for event in machine.receive(bytes([byte]))]
    told = [event for event in single if not isinstance(event, Audio)]
    assert [event for event in whole if not isinstance(event, Audio)] == told
    assert told[1:] == [Dtmf(digit="5"), Ended(clean=True, reason="hangup")]
    heard = [b"".join(event.data for event in events if isinstance(event, Audio)) for events in (whole, single)]
    assert heard[0] == heard[1] == b"".join(bytes([n, n]) for n in range(50)) + b"zz"
    assert len([event for event in whole if isinstance(event, Audio)]) == 2


def test_a_close_between_frames_is_a_hangup_and_one_within_a_frame_is_none():
    machine, _ = started()
    assert machine.closed(ORDERLY) == (Ended(clean=True, reason="closed"),)
    assert machine.closed(ORDERLY) == ()
    machine, _ = started()
    machine.receive(audio(b"abcd")[:-1])
    assert machine.closed(ORDERLY) == (Ended(clean=False, reason="connection_lost"),)


def test_a_broken_connection_and_an_error_frame_are_no_ends():
    machine, _ = started()
    assert machine.closed(None) == (Ended(clean=False, reason="connection_lost"),)
    machine, _ = started()
    assert machine.receive(frame(0xFF, b"\2")) == [Ended(clean=False, reason="recorder_error")]
    assert machine.closed(ORDERLY) == ()


def test_a_call_without_audio_records_nothing():
    machine = AudioSocket()
    assert machine.receive(UUID_FRAME + frame(0x03, b"1")) == []
    assert machine.closed(ORDERLY) == ()


def test_a_type_that_carries_no_audio_is_passed_over():
    machine, _ = started()
    assert machine.receive(frame(0x05, b"later") + audio(b"ab")) == [Audio(b"ab")]
    assert machine.receive(audio(b"") + frame(0x03, b"?") + frame(0x03, b"12")) == []


@pytest.mark.parametrize(
    "wire",
    [
        audio(b"ab"),
        frame(0x03, b"1"),
        frame(0x01, b"short"),
        UUID_FRAME + UUID_FRAME,
        UUID_FRAME + audio(b"ab", 0x19),
        b"G",
        b"\x16\x03\x01",
    ],
)
def test_what_is_no_audiosocket_is_refused(wire):
    with pytest.raises(Invalid):
        AudioSocket().receive(wire)


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (UUID_FRAME, Broken.ORDER),
        (audio(b"abc"), Broken.PAYLOAD),
        (audio(b"ab", 0x11), Broken.TRACK),
        (audio(b"ab", 0x19), Broken.TRACK),
    ],
)
def test_a_frame_that_cannot_be_kept_is_left_out_and_the_call_goes_on(wire, why):
    machine, _ = started()
    assert machine.receive(wire + audio(b"ab")) == [LeftOut(why), Audio(b"ab")]
    assert machine.closed(ORDERLY) == (Ended(clean=True, reason="closed"),)


def test_a_storm_of_frames_that_cannot_be_kept_ends_the_call():
    machine, _ = started()
    machine.receive(audio(b"abc") * MOST)
    with pytest.raises(Invalid, match="could not be read"):
        machine.receive(audio(b"abc"))


def test_nothing_is_taken_after_the_hangup_or_as_text():
    machine, _ = started()
    machine.receive(frame(0))
    with pytest.raises(Invalid):
        machine.receive(audio(b"ab"))
    with pytest.raises(Invalid):
        machine.receive("text")


def test_audio_before_a_frame_that_is_refused_is_kept():
    machine, _ = started()
    machine.receive(audio(b"odd") * MOST)
    assert machine.receive(audio(b"ab") + audio(b"odd") * 2 + audio(b"cd")) == [Audio(b"ab"), LeftOut(Broken.PAYLOAD)]
    with pytest.raises(Invalid):
        machine.receive(audio(b"ef"))


def test_what_waits_for_the_rest_of_its_frame_is_bounded():
    machine, _ = started()
    wire = audio(bytes(65_534)) * 30
    most = 0
    for start in range(0, len(wire), 40_000):
        machine.receive(wire[start : start + 40_000])
        most = max(most, len(machine._pending))
    assert 40_000 < most <= 65_537
