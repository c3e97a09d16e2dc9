"""Reading a head is total: whatever comes, it is a media descriptor that can be kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vault.media.descriptor import raw_media
from vault.media.heads import DIFFERENCES, examine_head
from vault.model import Codec, Container, Media

MARKS = (
    b"",
    b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00",
    b"OggS\x00\x02" + bytes(20) + b"\x01\x13OpusHead\x01",
    b"OggS\x00\x02" + bytes(20) + b"\x01\x1e\x01vorbis",
    b"OggS\x00\x02" + bytes(20) + b"\x01\x33\x7fFLAC",
    b"OggS\x00\x02" + bytes(20) + b"\x01\x50Speex   ",
    b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff\x16\x54\xae\x6b\xff\xae\xff\xe1\xff",
    b"ID3\x04\x00\x10",
    b"\xff\xfb\x90\x00",
)
DECLARED = (
    raw_media(Codec.PCMU, rate=8_000, channels=1),
    *(Media(container=each, codec=Codec.STREAM) for each in Container),
)


@given(
    declared=st.sampled_from(DECLARED), mark=st.sampled_from(MARKS), rest=st.binary(max_size=300), whole=st.booleans()
)
def test_any_first_bytes_of_any_declaration_can_be_kept(declared: Media, mark: bytes, rest: bytes, whole: bool) -> None:
    examined = examine_head(declared, mark + rest, whole=whole)
    assert examined.media.container is declared.container
    assert 0 <= examined.media.rate < 1 << 31
    assert 0 <= examined.media.channels < 1 << 31
    assert (examined.media.rate > 0) == (examined.media.channels > 0)
    assert examined.content is None or (declared.container, examined.content) in DIFFERENCES
