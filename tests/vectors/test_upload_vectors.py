"""The stored vectors of sealed secrets and spooled parts."""

import hashlib

import pytest

from tests.vectors import generate
from vault.crypto.values import open_secret
from vault.errors import FormatError, Tampered, Truncated
from vault.model import DataKey
from vault.services.uploads.spooling import BodyReader, BodyWriter, PartKey, Windows

ERRORS = {"tampered": Tampered, "truncated": Truncated, "format": FormatError}


class Stored:
    """A spool file in memory."""

    def __init__(self, data=b""):
        self.data = data

    @property
    def size(self):
        return len(self.data)

    async def append(self, data):
        self.data += data

    async def read(self, start, end):
        return self.data[start:end]


def cases(kind):
    return [pytest.param(case, id=case["name"]) for case in generate.load("uploads") if case["kind"] == kind]


@pytest.mark.parametrize("case", cases("secret"))
def test_secret_vector(case):
    given = DataKey(bytes.fromhex(case["data_key"])), case["token"], bytes.fromhex(case["sealed"])
    if case["outcome"] == "ok":
        assert open_secret(*given) == case["secret"]
        return
    with pytest.raises(ERRORS[case["outcome"]]):
        open_secret(*given)


async def read(case):
    place = PartKey(key=DataKey(bytes.fromhex(case["data_key"])), recording=case["recording"], number=case["number"])
    reader = await BodyReader.open(Stored(bytes.fromhex(case["message"])), place)
    return reader, await reader.md5()


@pytest.mark.parametrize("case", cases("part"))
async def test_part_vector(case):
    if case["outcome"] != "ok":
        with pytest.raises(ERRORS[case["outcome"]]):
            await read(case)
        return
    reader, md5 = await read(case)
    body = b"".join([piece async for piece in reader.pieces()])
    assert (len(body), md5.hex()) == (case["length"], case["md5"])
    assert hashlib.md5(body).digest() == md5


@pytest.mark.parametrize("size", [0, 1, 16_367, 16_368, 16_384, 262_128, 262_144, 700_000])
async def test_what_was_written_in_pieces_is_read_whatever_its_length(size):
    place = PartKey(key=DataKey(b"k" * 32), recording="rec_" + "1" * 32, number=1)
    stored = Stored()
    writer = BodyWriter(stored, place, entropy=lambda count: b"s" * count, windows=Windows(bound=1 << 20))
    body = bytes(index % 251 for index in range(size))
    for start in range(0, size, 9_999):
        await writer.write(body[start : start + 9_999])
    md5 = await writer.end()
    reader = await BodyReader.open(stored, place)
    assert reader.size == size
    assert await reader.md5() == md5 == hashlib.md5(body).digest()
    assert b"".join([piece async for piece in reader.pieces()]) == body
    assert b"".join([piece async for piece in reader.pieces(size // 2)]) == body[: size // 2]


async def test_bodies_that_keep_more_in_memory_together_than_their_bound_write_it_at_once_and_are_read_alike():
    place = PartKey(key=DataKey(b"k" * 32), recording="rec_" + "1" * 32, number=1)
    windows = Windows(bound=300_000)
    files = [Stored() for _ in range(20)]
    writers = [BodyWriter(file, place, entropy=lambda count: b"s" * count, windows=windows) for file in files]
    body = bytes(index % 251 for index in range(150_000))
    for start in range(0, len(body), 30_000):
        for writer in writers:
            await writer.write(body[start : start + 30_000])
            assert windows.bytes <= 300_000 + 32_768
    for writer, file in zip(writers[:19], files, strict=False):
        await writer.end()
        reader = await BodyReader.open(file, place)
        assert b"".join([piece async for piece in reader.pieces()]) == body
    for writer in writers:
        writer.drop()
    assert windows.bytes == 0
