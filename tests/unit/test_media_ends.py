"""The ends of streamed files, as GStreamer 1.22 sent them to `souphttpclientsink`."""

import pytest

from vault.media.heads import TAIL_BYTES, says_end
from vault.model import Container

LIST = bytes.fromhex("4c49535404000000494e464f")
HEADER_AGAIN = bytes.fromhex("52494646d00f000057415645666d74201000000007000100401f0000401f00000100080064617461a00f0000")
WAV = b"x" * 4_044 + LIST + HEADER_AGAIN


def page(flags, body=b"opus", lacing=None):
    return b"OggS\0" + bytes([flags]) + bytes(20) + bytes(lacing or [1, len(body)]) + body


def test_wavenc_says_the_end_with_a_header_whose_sizes_fit():
    assert len(WAV) == 4_100
    assert says_end(Container.WAV, WAV, 4_100)
    assert says_end(Container.WAV, WAV[-100:], 4_100)


@pytest.mark.parametrize("total", [4_099, 4_101, 0])
def test_a_header_that_counts_something_else_is_sound(total):
    assert not says_end(Container.WAV, WAV, total)


@pytest.mark.parametrize("tail", [b"", b"RIFF", HEADER_AGAIN[:-1], HEADER_AGAIN + b"x", WAV[:4_044]])
def test_a_wav_that_goes_on_has_not_ended(tail):
    assert not says_end(Container.WAV, tail, 4_100)


def test_the_last_page_of_ogg_says_the_end():
    assert says_end(Container.OGG, page(0) + page(4), 1)
    assert says_end(Container.OGG, page(4, b"OggS"), 1)
    assert not says_end(Container.OGG, page(4) + page(0), 1)


@pytest.mark.parametrize("cut", range(1, 34))
def test_a_last_page_that_is_cut_says_nothing(cut):
    assert not says_end(Container.OGG, page(0) + page(4)[:-cut], 1)


def test_the_largest_page_fits_into_what_is_kept():
    largest = page(4, b"y" * 65_025, [255] + [255] * 255)
    assert len(largest) == TAIL_BYTES
    assert says_end(Container.OGG, (b"x" * 1_000 + largest)[-TAIL_BYTES:], 1)


@pytest.mark.parametrize("container", [Container.RAW, Container.MP3, Container.WEBM])
def test_other_containers_say_no_end(container):
    assert not says_end(container, page(4), 34)
