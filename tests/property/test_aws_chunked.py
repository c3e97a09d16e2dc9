"""aws-chunked bodies, however they are cut, and whatever was done to them on the way."""

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.damaged import MUTATIONS, mutated
from tests.helpers.soak import examples
from vault.errors import VaultError
from vault.protocol.s3.body import ChunkedDecoder
from vault.protocol.s3.sigv4 import ChunkSigner, Claim

KEY = b"k" * 32
CLAIM = Claim(
    access_key="k",
    scope="20130524/us-east-1/s3/aws4_request",
    signed_at=datetime(2013, 5, 24, tzinfo=UTC),
    signed_headers=("host",),
    signature="0" * 64,
    payload="",
)


def encoded(chunks, *, signed, trailer):
    """Return the body as messages: what a client writes at once."""
    signer = ChunkSigner(CLAIM, KEY)
    messages = []
    for chunk in [*chunks, b""]:
        extra = b""
        if signed:
            extra = b";chunk-signature=" + signer.chunk(hashlib.sha256(chunk).hexdigest()).encode()
        messages.append(b"%x%s\r\n" % (len(chunk), extra))
        if chunk:
            messages.append(chunk + b"\r\n")
    if trailer:
        messages.append(b"x-amz-checksum-crc32:AAAAAA==\r\n")
        if signed:
            signature = signer.trailer(b"x-amz-checksum-crc32:AAAAAA==\n")
            messages.append(b"x-amz-trailer-signature:" + signature.encode() + b"\r\n")
    return [*messages, b"\r\n"]


def decoder(*, signed, trailer):
    return ChunkedDecoder(signer=ChunkSigner(CLAIM, KEY) if signed else None, trailer=trailer)


CHUNKS = st.lists(st.binary(min_size=1, max_size=300), max_size=6)


@given(chunks=CHUNKS, signed=st.booleans(), trailer=st.booleans(), data=st.data())
def test_any_cut_gives_the_same_bytes(chunks, signed, trailer, data):
    wire = b"".join(encoded(chunks, signed=signed, trailer=trailer))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    machine = decoder(signed=signed, trailer=trailer)
    pieces = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        pieces += machine.feed(wire[start:end])
    machine.finish()
    assert b"".join(pieces) == b"".join(chunks)
    assert machine.vouched == sum(map(len, chunks))
    assert set(machine.trailers) == ({"x-amz-checksum-crc32"} if trailer else set())


@given(chunks=CHUNKS.filter(bool), trailer=st.booleans(), data=st.data())
def test_no_changed_byte_of_a_signed_body_passes(chunks, trailer, data):
    wire = bytearray(b"".join(encoded(chunks, signed=True, trailer=trailer)))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    machine = decoder(signed=True, trailer=trailer)
    try:
        pieces = machine.feed(bytes(wire))
        machine.finish()
    except VaultError:
        return
    # What still passes says the same: a hex digit in the other case, or a line end of another kind.
    assert b"".join(pieces) == b"".join(chunks)


@pytest.mark.parametrize("signed", [False, True])
def test_damaged_bodies_end_in_an_answer_and_hold_no_more_than_they_were_fed(signed):
    transcript = encoded([b"a" * 700, b"b" * 5, b"c" * 1_000], signed=signed, trailer=True)
    for seed in range(MUTATIONS // 2):
        machine = decoder(signed=signed, trailer=True)
        fed = given_out = 0
        try:
            for message in mutated(transcript, seed):
                data = message.encode(errors="surrogatepass") if isinstance(message, str) else message
                fed += len(data)
                given_out += sum(map(len, machine.feed(data)))
                assert len(machine._held) <= 1_024
                assert given_out <= fed
            machine.finish()
        except VaultError:
            continue


@settings(max_examples=examples(200))
@given(st.binary(max_size=3_000), st.booleans())
def test_noise_ends_in_an_answer(noise, signed):
    machine = decoder(signed=signed, trailer=True)
    try:
        machine.feed(noise)
        machine.finish()
    except VaultError:
        pass
