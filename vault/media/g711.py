"""G.711 companding (ITU-T G.711, 11/1988) as tables: PCMU and PCMA to and from 16-bit linear, little endian.

Decoding runs at memory speed without a loop in Python: `bytes.translate` produces the low and the high byte of every
sample, and slice assignment interleaves them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from vault.errors import Invalid
from vault.model import Codec

SILENCE: Final = {Codec.PCMU: 0xFF, Codec.PCMA: 0xD5}
"""The code of the sample nearest zero, for filling gaps."""

_MULAW_BIAS: Final = 0x84
_MULAW_CLIP: Final = 0x7FFF - _MULAW_BIAS
_SIGN: Final = 0x80
_ALAW_EVEN_BITS: Final = 0x55


def _mulaw_sample(code: int) -> int:
    inverted = ~code & 0xFF
    exponent, mantissa = inverted >> 4 & 7, inverted & 15
    magnitude = ((mantissa << 3) + _MULAW_BIAS << exponent) - _MULAW_BIAS
    return -magnitude if inverted & _SIGN else magnitude


def _alaw_sample(code: int) -> int:
    toggled = code ^ _ALAW_EVEN_BITS
    exponent, mantissa = toggled >> 4 & 7, toggled & 15
    # Segment 0 is linear; from segment 1 on the leading bit is implied. The half step centres the interval.
    magnitude = (mantissa << 4) + 8 if exponent == 0 else (mantissa << 4) + 0x108 << exponent - 1
    return magnitude if toggled & _SIGN else -magnitude


def _mulaw_code(sample: int) -> int:
    # One's complement of negative samples, as ITU-T G.191 does it: -1 and 0 are the two sides of zero.
    magnitude = min(sample if sample >= 0 else ~sample, _MULAW_CLIP) + _MULAW_BIAS
    exponent = magnitude.bit_length() - 8
    mantissa = magnitude >> exponent + 3 & 15
    return ~((_SIGN if sample < 0 else 0) | exponent << 4 | mantissa) & 0xFF


def _alaw_code(sample: int) -> int:
    magnitude = sample if sample >= 0 else ~sample
    exponent = max(magnitude.bit_length() - 8, 0)
    mantissa = magnitude >> max(exponent, 1) + 3 & 15
    return ((_SIGN if sample >= 0 else 0) | exponent << 4 | mantissa) ^ _ALAW_EVEN_BITS


_SAMPLE: Final[dict[Codec, Callable[[int], int]]] = {Codec.PCMU: _mulaw_sample, Codec.PCMA: _alaw_sample}
_CODE: Final[dict[Codec, Callable[[int], int]]] = {Codec.PCMU: _mulaw_code, Codec.PCMA: _alaw_code}


@cache
def _decoding(codec: Codec) -> tuple[bytes, bytes]:
    samples = [_SAMPLE[_known(codec)](code) & 0xFFFF for code in range(256)]
    return bytes(sample & 0xFF for sample in samples), bytes(sample >> 8 for sample in samples)


@cache
def _encoding(codec: Codec) -> bytes:
    code = _CODE[_known(codec)]
    return bytes(code(value - 0x10000 if value & 0x8000 else value) for value in range(0x10000))


def _known(codec: Codec) -> Codec:
    if codec not in _SAMPLE:
        raise Invalid(f"{codec} is not a G.711 codec")
    return codec


def decode(codec: Codec, codes: bytes | bytearray) -> bytes:
    """Expand codes, one byte each, to signed 16-bit little-endian samples: twice the bytes. Invalid if not G.711."""
    low, high = _decoding(codec)
    samples = bytearray(2 * len(codes))
    samples[0::2] = codes.translate(low)
    samples[1::2] = codes.translate(high)
    return bytes(samples)


def encode(codec: Codec, samples: bytes | bytearray) -> bytes:
    """Compress signed 16-bit little-endian samples to one code each; Invalid for half a sample or another codec."""
    if len(samples) % 2:
        raise Invalid("16-bit samples come in pairs of bytes")
    table = _encoding(codec)
    # Composed from bytes so that the host's own byte order never shows.
    return bytes([table[high << 8 | low] for low, high in zip(samples[0::2], samples[1::2], strict=True)])
