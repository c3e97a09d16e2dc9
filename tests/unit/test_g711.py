"""G.711 tables against the Recommendation, written down here a second time in another way."""

from __future__ import annotations

import struct

import pytest

from vault.errors import Invalid
from vault.media import g711
from vault.model import Codec

ALL_CODES = bytes(range(256))


def samples_of(data: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(data) // 2}h", data))


def itu_mulaw_values() -> list[int]:
    """Table 2a/2b of G.711: 8 segments of 16 values on the 14-bit scale, character signals with all bits inverted."""
    values = []
    for code in range(256):
        segment, step = (255 - code) % 128 // 16, (255 - code) % 16
        magnitude = 33 * (2**segment - 1) + step * 2 ** (segment + 1)
        values.append((magnitude if code >= 128 else -magnitude) * 4)
    return values


def itu_alaw_values() -> list[int]:
    """Table 1a/1b of G.711: 13 segments on the 13-bit scale (doubled here: interval mid-points), even bits inverted."""
    values = []
    for code in range(256):
        bits = code ^ 0b01010101
        segment, step = bits % 128 // 16, bits % 16
        magnitude = 2 * step + 1 if segment == 0 else (2 * step + 33) * 2 ** (segment - 1)
        values.append((magnitude if bits >= 128 else -magnitude) * 8)
    return values


TABLES = {Codec.PCMU: itu_mulaw_values(), Codec.PCMA: itu_alaw_values()}


@pytest.mark.parametrize("codec", TABLES)
def test_every_code_expands_to_the_recommendations_value(codec: Codec) -> None:
    assert samples_of(g711.decode(codec, ALL_CODES)) == TABLES[codec]


def test_known_points_of_the_scales() -> None:
    assert samples_of(g711.decode(Codec.PCMU, b"\x00\x80\xff\x7f")) == [-32124, 32124, 0, 0]
    assert samples_of(g711.decode(Codec.PCMA, b"\x2a\xaa\xd5\x55")) == [-32256, 32256, 8, -8]


@pytest.mark.parametrize("codec", TABLES)
def test_the_silence_code_is_the_sample_nearest_zero(codec: Codec) -> None:
    silence = TABLES[codec][g711.SILENCE[codec]]
    assert silence >= 0
    assert abs(silence) == min(abs(value) for value in TABLES[codec])


def test_decoding_keeps_order_and_doubles_the_length() -> None:
    codes = bytes(range(255, -1, -1)) * 3 + b"\x01"
    assert samples_of(g711.decode(Codec.PCMU, bytearray(codes))) == [TABLES[Codec.PCMU][code] for code in codes]
    assert g711.decode(Codec.PCMA, b"") == b""


@pytest.mark.parametrize("codec", [Codec.S16LE, Codec.S16BE, Codec.STREAM])
def test_other_codecs_are_not_g711(codec: Codec) -> None:
    with pytest.raises(Invalid):
        g711.decode(codec, b"\x00")
