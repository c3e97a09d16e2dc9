"""Chunked encryption: what is sealed opens, and nothing else does."""

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor

from vault.crypto import chunked
from vault.errors import IntegrityError, Tampered, Truncated

KEY, SALT, CONTEXT = bytes(range(32)), bytes(range(100, 124)), b"header bytes"
CHUNK, STRIDE, PREFIX = 16_384, 16_400, 56
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 77]


def pattern(length):
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def seal(plaintext, **changes):
    given = {"input_key": KEY, "salt": SALT, "context": CONTEXT, "pieces": plaintext} | changes
    return bytes(chunked.seal(given["input_key"], given["salt"], given["context"], given["pieces"]))


def unseal(message, *, key=KEY, context=CONTEXT):
    return chunked.open_message(key, context, message)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_opens(size):
    message = seal(pattern(size))
    assert len(message) == chunked.sealed_length(size)
    assert chunked.plaintext_length(len(message)) == size
    assert unseal(message) == pattern(size)
    assert unseal(bytearray(message)) == unseal(memoryview(message)) == pattern(size)


@pytest.mark.parametrize("size", [*SIZES, 257 * CHUNK])
def test_an_independent_implementation_opens_what_we_seal_and_the_reverse(size):
    theirs = Cobblestone256Decryptor(KEY, CONTEXT)
    assert theirs.update(seal(pattern(size))) + theirs.finalize() == pattern(size)
    sealer = Cobblestone256Encryptor(KEY, CONTEXT)
    assert unseal(sealer.update(pattern(size)) + sealer.finalize()) == pattern(size)


@pytest.mark.parametrize("cut", [1, 7, 160, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 65_536])
@pytest.mark.parametrize("size", SIZES)
def test_how_the_plaintext_is_cut_into_pieces_does_not_matter(size, cut):
    plain = pattern(size)
    kinds = (bytes, bytearray, memoryview)
    pieces = [kinds[at // cut % 3](plain[at : at + cut]) for at in range(0, size, cut)]
    assert seal([b"", *pieces, b""]) == seal(plain)


def test_the_head_precedes_the_message_unencrypted():
    sealed = chunked.seal(KEY, SALT, CONTEXT, b"x", head=b"head")
    assert sealed == b"head" + seal(b"x")


def test_no_plaintext_shows_in_the_message():
    assert b"admissions" not in seal(b"admissions" * 3_000)


@pytest.mark.parametrize("plaintext", [b"", b"a", b"forty-eight kilobits of a voice on the line"])
def test_every_single_bit_flip_is_refused(plaintext):
    message = seal(plaintext)
    for bit in range(len(message) * 8):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Tampered):
            unseal(changed)


@pytest.mark.parametrize("plaintext", [b"", b"a", b"forty-eight kilobits of a voice on the line"])
def test_every_truncation_of_a_short_message_is_refused(plaintext):
    message = seal(plaintext)
    for end in range(len(message)):
        with pytest.raises((Tampered, Truncated)):
            unseal(message[:end])


@pytest.mark.parametrize("size", [CHUNK, CHUNK + 9, 2 * CHUNK])
def test_truncation_around_every_chunk_border_is_refused(size):
    message = seal(pattern(size))
    borders = [PREFIX + k * STRIDE for k in range(size // CHUNK + 2)]
    for end in {border + shift for border in borders for shift in range(-20, 21)}:
        if 0 <= end < len(message):
            with pytest.raises((Tampered, Truncated)):
                unseal(message[:end])


@pytest.mark.parametrize("full_chunks", [1, 2, 3])
def test_a_message_that_ends_on_a_full_chunk_is_truncated(full_chunks):
    message = seal(pattern(full_chunks * CHUNK + 5))
    with pytest.raises(Truncated, match="its end is missing"):
        unseal(message[: PREFIX + full_chunks * STRIDE])


@pytest.mark.parametrize("extra", [b"\0", b"\0" * 16, b"\0" * STRIDE])
@pytest.mark.parametrize("size", [0, 5, CHUNK])
def test_every_extension_is_refused(size, extra):
    with pytest.raises(IntegrityError):
        unseal(seal(pattern(size)) + extra)


@pytest.mark.parametrize("order", [(1, 0), (0, 0), (1, 1), (0,), (1,), (), (0, 1, 1), (0, 1, 0)])
def test_reordered_repeated_and_missing_chunks_are_refused(order):
    message = seal(pattern(2 * CHUNK + 30))
    body = [message[PREFIX + k * STRIDE : PREFIX + (k + 1) * STRIDE] for k in range(3)]
    with pytest.raises(Tampered):
        unseal(message[:PREFIX] + b"".join(body[k] for k in order) + body[2])


def test_chunks_of_another_message_under_the_same_key_are_refused():
    one, other = seal(pattern(CHUNK + 5)), seal(pattern(CHUNK + 5), salt=bytes(24))
    with pytest.raises(Tampered):
        unseal(one[: PREFIX + STRIDE] + other[PREFIX + STRIDE :])


def test_another_key_or_context_is_refused_before_any_chunk_is_read():
    message = seal(b"secret")
    for key, context in ((bytes(32), CONTEXT), (KEY, CONTEXT + b"\0"), (KEY, b"")):
        with pytest.raises(Tampered, match="commitment"):
            chunked.Opener(key, context, message[:PREFIX])


@pytest.mark.parametrize(("key", "salt"), [(bytes(31), SALT), (bytes(33), SALT), (KEY, bytes(23)), (KEY, bytes(25))])
def test_keys_and_salts_of_another_size_are_the_callers_mistake(key, salt):
    with pytest.raises(ValueError, match="input key is 32 bytes"):
        chunked.seal(key, salt, CONTEXT, b"x")


def test_a_short_prefix_is_truncated():
    with pytest.raises(Truncated):
        chunked.Opener(KEY, CONTEXT, seal(b"")[: PREFIX - 1])


def test_single_chunks_open_and_only_in_their_own_place():
    message = seal(pattern(CHUNK + 9))
    opener = chunked.Opener(KEY, CONTEXT, message[:PREFIX])
    first, last = message[PREFIX : PREFIX + STRIDE], message[PREFIX + STRIDE :]
    assert opener.chunk(0, first, last=False) + opener.chunk(1, last, last=True) == pattern(CHUNK + 9)
    with pytest.raises(Tampered, match="chunk 1 failed"):
        opener.chunk(1, first, last=False)
    for number, chunk, is_last in ((0, first, True), (1, last, False), (1, last[:15], True), (-1, last, True)):
        with pytest.raises(Truncated):
            opener.chunk(number, chunk, last=is_last)


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 77])
def test_a_window_is_the_slice_it_names(size):
    plain, message = pattern(size), seal(pattern(size))
    opener = chunked.Opener(KEY, CONTEXT, message[:PREFIX])
    marks = sorted({m for k in range(5) for m in (k * CHUNK - 1, k * CHUNK, k * CHUNK + 1, size) if 0 <= m <= size})
    for start in marks:
        for end in (mark for mark in marks if mark >= start):
            window = chunked.chunk_window(start, end, size)
            assert opener.window(window, message[window.start : window.end]) == plain[start:end]
            assert window.last == (start < end and (end - 1) // CHUNK == size // CHUNK)


def test_a_window_needs_only_the_chunks_it_touches():
    window = chunked.chunk_window(CHUNK - 1, CHUNK + 1, 10 * CHUNK)
    assert (window.start, window.end) == (PREFIX, PREFIX + 2 * STRIDE)
    assert chunked.chunk_window(5, 5, 9).end == chunked.chunk_window(5, 5, 9).start


def test_a_window_given_other_bytes_than_it_names_is_refused():
    message = seal(pattern(3 * CHUNK))
    opener = chunked.Opener(KEY, CONTEXT, message[:PREFIX])
    window = chunked.chunk_window(CHUNK, 2 * CHUNK, 3 * CHUNK)
    with pytest.raises(Truncated):
        opener.window(window, message[window.start : window.end - 1])
    with pytest.raises(Tampered):
        opener.window(window, message[window.start - STRIDE : window.end - STRIDE])


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (2, 1), (0, 11), (11, 11)])
def test_a_window_outside_the_message_is_the_callers_mistake(start, end):
    with pytest.raises(ValueError, match="not inside"):
        chunked.chunk_window(start, end, 10)


def test_lengths_map_both_ways():
    for size in range(0, 3 * CHUNK + 5, 331):
        assert chunked.plaintext_length(chunked.sealed_length(size)) == size
    for impossible in (-1, 0, 55, 56, 71, PREFIX + STRIDE, PREFIX + STRIDE + 15):
        with pytest.raises(Truncated):
            chunked.plaintext_length(impossible)
