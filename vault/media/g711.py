"""G.711 companding (ITU-T G.711, 11/1988) as tables: PCMU and PCMA to 16-bit linear, little endian.

Decoding has no loop in Python: `bytes.translate` gives the low and the high bytes of the samples, and slice assignment
interleaves them.
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


_SAMPLE: Final[dict[Codec, Callable[[int], int]]] = {Codec.PCMU: _mulaw_sample, Codec.PCMA: _alaw_sample}


@cache
def _decoding(codec: Codec) -> tuple[bytes, bytes]:
    samples = [_SAMPLE[_known(codec)](code) & 0xFFFF for code in range(256)]
    return bytes(sample & 0xFF for sample in samples), bytes(sample >> 8 for sample in samples)


def _known(codec: Codec) -> Codec:
    if codec not in _SAMPLE:
        raise Invalid(f"{codec} is not a G.711 codec")
    return codec


def decode(codec: Codec, codes: bytes | bytearray) -> bytes:
    """Return the codes, one byte each, as signed 16-bit little-endian samples; Invalid if `codec` is not G.711."""
    low, high = _decoding(codec)
    samples = bytearray(2 * len(codes))
    samples[0::2] = codes.translate(low)
    samples[1::2] = codes.translate(high)
    return bytes(samples)
