"""Twilio's and Telnyx's transcripts, damaged in every way."""

import base64
import json

import pytest

from tests.helpers.damaged import MUTATIONS, mutated
from tests.transcripts import transcript
from vault.errors import VaultError
from vault.media.tracks import FILL_MS, WINDOW_MS
from vault.protocol.live.events import Audio, Ended, Handshake, Started
from vault.protocol.live.recognise import recognise

_LONGEST = 1 << 18  # what the WebSocket takes as one message


def long_call(name):
    """The documentation's call with half a second of both tracks in it."""
    messages = list(transcript(name))
    pieces = [
        json.dumps(
            {
                "event": "media",
                "media": {
                    "track": track,
                    "chunk": str(chunk),
                    "timestamp": str(chunk * 20),
                    "payload": base64.b64encode(bytes([chunk]) * 160).decode(),
                },
            }
        )
        for chunk in range(3, 28)
        for track in ("inbound", "outbound")
    ]
    return [*messages[:4], *pieces, *messages[4:]]


def heard(machine, message):
    return machine.receive(message) if len(message) <= _LONGEST else ()


@pytest.mark.parametrize("name", ["twilio", "telnyx"])
def test_a_damaged_call_yields_audio_or_the_vaults_errors_and_little_waits(name):
    messages = long_call(name)
    window = WINDOW_MS * 8
    survived = 0
    for seed in range(MUTATIONS // 2):
        damaged = mutated(messages, seed)
        machine, events = None, []
        try:
            for message in damaged:
                machine = machine or recognise(Handshake(), message)
                events += heard(machine, message)
        except VaultError:
            pass
        if machine is None:
            continue
        if machine._tracks is not None:
            for track in machine._tracks._tracks:
                assert len(track.ready) + sum(len(piece.data) for piece in track.held) <= 2 * window + 12 * 160
        events += machine.closed(None)
        kinds = [type(event) for event in events]
        assert kinds.count(Started) <= 1
        assert kinds.count(Ended) == kinds.count(Started)
        assert sum(len(event.data) for event in events if isinstance(event, Audio)) <= 2 * 8 * (4 * FILL_MS + 2_000)
        survived += bool(kinds) and events[-1].clean
    assert survived > MUTATIONS // 20  # or the damage would prove little
