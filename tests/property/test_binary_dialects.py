"""Recorders that send bare samples, cut anywhere, damaged anyhow."""

import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.damaged import MUTATIONS, mutated
from tests.helpers.soak import examples
from tests.helpers.websocket_recorders import RECORDERS, text
from vault.errors import VaultError
from vault.protocol.live.events import Audio, Dtmf, Ended, Handshake, LeftOut, Started
from vault.protocol.live.recognise import recognise

EVERY = pytest.mark.parametrize("recorder", RECORDERS.values(), ids=RECORDERS)
QUERIES = st.dictionaries(
    st.sampled_from(["rate", "channels", "codec", "from", "to", "direction"]), st.text(max_size=8), max_size=4
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
WORDS = st.sampled_from(
    ["sampleRate", "mixType", "event", "content-type", "callSid", "from", "token", "format", "digit"]
)


def heard(messages, handshake):
    """Return the events of a whole connection, as far as it is not refused, and the machine."""
    events, machine = [], None
    with suppress(VaultError):
        for message in messages:
            if machine is None:
                machine = recognise(handshake, message)
            events.extend(machine.receive(message))
            if any(isinstance(event, Ended) for event in events):
                return events, machine
        if machine is not None:
            events.extend(machine.closed(None))
    return events, machine


def held_bytes(machine):
    """Return how much a machine remembers beyond what it was born with."""
    frames = vars(machine).get("_frames")
    assert set(vars(machine)) <= {"_handshake", "_state", "_frames", "breakage"}
    return 0 if frames is None else len(frames._rest)


def sound(events, machine):
    """Check what must hold of every connection, whatever was sent."""
    assert [type(event) for event in events].count(Started) <= 1
    for event in events:
        match event:
            case Started():
                assert len(event.facts.extra) <= 50
                assert sum(map(sys.getsizeof, event.facts.extra.values())) < 50 * 1024
                for value in (*event.facts.extra, *event.facts.extra.values()):
                    value.encode()  # what cannot be encoded cannot be sealed
            case Audio():
                assert event.data
                size = 1 if events[0].media.codec.startswith("pcm") else 2
                assert len(event.data) % (size * events[0].media.channels) == 0
            case Dtmf():
                assert event.digit in "0123456789*#ABCD"
            case _:
                assert isinstance(event, Ended | LeftOut)
    if machine is not None:
        assert held_bytes(machine) < 2 * 16


@EVERY
@given(data=st.data())
def test_wherever_a_recorder_cuts_its_audio_the_same_is_kept(recorder, data):
    audio = recorder.audio
    cuts = sorted(data.draw(st.lists(st.integers(0, len(audio)), max_size=20)))
    pieces = [audio[a:b] for a, b in zip([0, *cuts], [*cuts, len(audio)], strict=True) if a < b]
    events, machine = heard([*recorder.first, *pieces], recorder.handshake)
    assert b"".join(event.data for event in events if isinstance(event, Audio)) == audio
    assert held_bytes(machine) == 0


@EVERY
def test_a_damaged_transcript_is_refused_or_understood_and_nothing_else(recorder):
    for seed in range(MUTATIONS // len(RECORDERS)):
        sound(*heard(mutated(recorder.messages, seed), recorder.handshake))


@settings(max_examples=examples(300))
@given(
    first=st.one_of(
        st.text(max_size=200),
        st.binary(max_size=200),
        st.dictionaries(WORDS | st.text(max_size=10), JSON, max_size=8).map(lambda value: text(**value)),
        st.dictionaries(WORDS, JSON, max_size=8).map(
            lambda value: text(**{"event": "websocket:connected", "content-type": "audio/l16;rate=8000", **value})
        ),
        st.lists(st.text(max_size=12), max_size=20).map(lambda words: " ".join(["MEDIA_START format:ulaw", *words])),
    ),
    rest=st.lists(st.text(max_size=50) | st.binary(max_size=50), max_size=8),
    query=QUERIES,
    offered=st.lists(st.sampled_from(["audio.jambonz.org", "media", "chat"]), max_size=2),
)
def test_anything_at_all_is_refused_or_understood(first, rest, query, offered):
    sound(*heard([first, *rest], Handshake(subprotocols=tuple(offered), query=query)))
