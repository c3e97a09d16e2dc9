"""The sample call that the demo and the tests record is what its README says."""

from __future__ import annotations

import struct
from importlib.resources import files

from vault.media.descriptor import parse_content_type
from vault.media.g711 import decode
from vault.model import Codec

SAMPLE = files("cli").joinpath("data", "sample-call.ulaw").read_bytes()
MEDIA = parse_content_type("audio/PCMU;rate=8000;channels=2")


def loudness_per_frame(channel: int) -> list[int]:
    """The loudest sample of one channel in each 50 ms."""
    codes = SAMPLE[channel::2]
    samples = struct.unpack(f"<{len(codes)}h", decode(Codec.PCMU, codes))
    return [max(map(abs, samples[start : start + 400])) for start in range(0, len(samples), 400)]


def test_the_sample_is_stereo_telephone_audio_of_the_documented_length() -> None:
    assert len(SAMPLE) % 2 == 0
    assert len(SAMPLE) <= 400_000
    assert 14 <= len(SAMPLE) / (MEDIA.channels * MEDIA.rate) <= 18


def test_caller_and_receptionist_take_turns_and_both_speak() -> None:
    caller, receptionist = loudness_per_frame(0), loudness_per_frame(1)
    assert not [pair for pair in zip(caller, receptionist, strict=True) if min(pair) > 0]
    for channel in (caller, receptionist):
        assert sum(loud > 1000 for loud in channel) * 0.05 > 4
