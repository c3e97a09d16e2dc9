import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.helpers.audiohook_client import (
    COMPONENTS,
    CREATED,
    GOLDEN,
    ORGANIZATION,
    SECRET,
    SESSION,
    SIGNATURE,
    SIGNATURE_INPUT,
    TONE,
    Client,
)
from tests.helpers.damaged import MUTATIONS, mutated
from tests.helpers.hook_recorders import UUID_FRAME, audio, frame
from vault.errors import Unauthenticated, VaultError
from vault.protocol.live.audiohook import AudioHook, parse_signature, verify
from vault.protocol.live.events import Audio, Ended, Gap, Paused, Resumed, Say, Started
from vault.protocol.live.streams import ORDERLY, AudioSocket, RtpengineTcp

SOCKET = (UUID_FRAME, *(audio(bytes([n]) * 320) for n in range(4)), frame(0x03, b"7"), audio(b"ab"), frame(0x00))
RTPENGINE = (b"call_key:call-7|caller:+442079460000\0", *(bytes([n]) * 320 for n in range(6)))
MACHINES = {
    "audiohook": (lambda: AudioHook(session=SESSION, organization=ORGANIZATION), GOLDEN),
    "audiosocket": (AudioSocket, SOCKET),
    "rtpengine": (lambda: RtpengineTcp(rate=8000, channels=2), RTPENGINE),
}


def held(machine):
    return len(getattr(machine, "_pending", b""))


@pytest.mark.parametrize("name", MACHINES)
def test_a_damaged_transcript_raises_nothing_but_the_vaults_errors_and_holds_little(name):
    make, golden = MACHINES[name]
    refused = 0
    for seed in range(MUTATIONS):
        machine, events = make(), []
        try:
            for message in mutated(golden, seed):
                events += machine.receive(message)
                assert held(machine) <= 65_537 + 65_536
            events += machine.idle()
            events += machine.closed(ORDERLY)
        except VaultError:
            refused += 1
        kinds = [type(event) for event in events if not isinstance(event, Say)]
        assert kinds[1:].count(Started) == 0
        assert not kinds or kinds[0] in {Started, Ended}
        assert kinds.count(Ended) <= 1
        assert Ended not in kinds[:-1]
        assert all(event.data for event in events if isinstance(event, Audio))
    assert 0 < refused < MUTATIONS


STEPS = st.lists(
    st.sampled_from(["audio", "paused", "resumed", "ping", "update", "discarded", "error", "dtmf", "late"]), max_size=30
)


@given(STEPS)
def test_whatever_a_client_says_audio_of_a_pause_comes_between_its_marks_and_no_other_does(steps):
    client, machine = Client(), AudioHook(session=SESSION, organization=ORGANIZATION)
    paused, marked, expected, kept, resumed = False, False, 0, 0, 0
    list(machine.receive(client.open()))
    for step in steps:
        match step:
            case "audio":
                events = machine.receive(TONE)
                expected += not paused
            case "discarded":
                events = machine.receive(client.say(step, start="PT0S", discarded="PT1S"))
                assert [type(event) for event in events] == [Gap]
            case _:
                events = machine.receive(client.say(step))
                paused = {"paused": True, "resumed": False}.get(step, paused)
        for event in events:
            resumed += isinstance(event, Resumed) and not marked
            marked = isinstance(event, Paused) or (marked and not isinstance(event, Resumed))
            kept += event == Audio(TONE) and not marked
        assert marked is paused
    assert (kept, resumed) == (expected, 0)
    said = [json.loads(each.payload)["type"] for each in machine.refused("error", "", begun=True)]
    assert said == ["disconnect"]


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 700))
def test_audiosocket_gives_back_the_samples_of_any_frames_cut_anywhere(payloads, step):
    samples = [payload[: len(payload) // 2 * 2] for payload in payloads]
    wire = UUID_FRAME + b"".join(audio(each) for each in samples)
    machine = AudioSocket()
    events = [event for at in range(0, len(wire), step) for event in machine.receive(wire[at : at + step])]
    assert b"".join(event.data for event in events if isinstance(event, Audio)) == b"".join(samples)
    assert [event.clean for event in machine.closed(ORDERLY)] == ([True] if samples else [])


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 6))
def test_rtpengine_gives_back_whole_samples_and_says_when_one_is_cut(pieces, channels):
    machine = RtpengineTcp(rate=8000, channels=channels)
    events = [event for piece in (b"call-7\0", *pieces) for event in machine.receive(piece)]
    whole = b"".join(pieces)
    cut = len(whole) % (2 * channels)
    assert b"".join(event.data for event in events if isinstance(event, Audio)) == whole[: len(whole) - cut]
    assert [ended.clean for ended in machine.closed(ORDERLY)] == ([cut == 0] if len(whole) > cut else [])


@given(st.integers(0, len(SIGNATURE_INPUT) - 1), st.characters(codec="ascii"))
def test_a_signature_whose_parameters_were_changed_anywhere_is_refused(at, character):
    changed = SIGNATURE_INPUT[:at] + character + SIGNATURE_INPUT[at + 1 :]
    assume(changed != SIGNATURE_INPUT)
    with pytest.raises(Unauthenticated):
        verify(
            parse_signature(changed, SIGNATURE),
            key=SECRET,
            values=COMPONENTS,
            required=frozenset(COMPONENTS),
            now=CREATED,
        )
