"""Segment objects: sound ones, damaged ones, and sound ones in the wrong place."""

from tests.vectors.encoding import plaintext_facts, seed, to_json
from tests.vectors.make_chunked import flat_plaintext, flipped
from vault.crypto import chunked
from vault.crypto.derive import Purpose, subkey
from vault.crypto.sealed import seal_segment
from vault.format import codec
from vault.format.codec import frame
from vault.format.segment import MAGIC, SegmentHeader, encode_header
from vault.ids import RecordingId, parse_tenant
from vault.model import Cohort, Coordinate, DataKey, Part

NAME = "segment"
ABOUT = (
    "Whole segment objects. `data_key` is the leaf key of the recording; `expected` is the header the object must "
    "have in the place it was read from. Bytes are hex; in a list, a number is that many zero bytes."
)

KEY = DataKey(seed("data key"))
SALT = seed("segment salt", 24)
RECORDING = RecordingId("rec_018f3a5c7d2e7b3a9c4d5e6f70819203")
ATTEMPT = "00112233445566778899aabbccddeeff"


def coordinate(*, part=Part.AUDIO, tenant="northgate", leaf=7):
    return Coordinate(
        cohort=Cohort(tenant=parse_tenant(tenant), part=part, period=20_512, generation=3 if leaf else 0), leaf=leaf
    )


def header(**changes):
    fields = {
        "recording": RECORDING,
        "part": Part.AUDIO,
        "index": 41,
        "offset": 41 * 8_388_608,
        "attempt": ATTEMPT,
        "coordinate": coordinate(),
        "created_ms": 1_764_000_000_123,
    }
    return SegmentHeader(**(fields | changes))


def header_json(value):
    return codec.unpack(encode_header(value))


def case(name, outcome, data, *, key=KEY, expected=None, plaintext=None):
    found = {
        "name": name,
        "outcome": outcome,
        "data_key": key.material.hex(),
        "expected": header_json(expected or header()),
        "object": to_json(data),
    }
    return found if plaintext is None else found | plaintext_facts(plaintext)


def raw(header_bytes, *, magic=MAGIC):
    """Return an object with any header bytes at all, sealed as if they were right."""
    return chunked.seal(subkey(KEY, Purpose.SEGMENT), SALT, header_bytes, b"x", head=frame(magic, header_bytes))


def cases():
    text = b"Good morning, admissions office."
    short = seal_segment(KEY, header(), text, salt=SALT)
    sound = encode_header(header())
    long_plain = flat_plaintext(16_384 + 9, subkey(KEY, Purpose.SEGMENT), SALT, sound)
    long = seal_segment(KEY, header(), long_plain, salt=SALT)
    loose = {**header_json(header()), "version": 2}
    start = 8 + len(sound)
    return [
        case("short", "ok", short, plaintext=text),
        case("two chunks", "ok", long, plaintext=long_plain),
        case(
            "first of another tenant",
            "ok",
            seal_segment(
                KEY,
                header(index=0, offset=0, coordinate=coordinate(tenant="a", leaf=0), created_ms=0),
                [text[:5], text[5:]],
                salt=SALT,
            ),
            expected=header(index=0, offset=0, coordinate=coordinate(tenant="a", leaf=0), created_ms=0),
            plaintext=text,
        ),
        case("wrong key", "tampered", short, key=DataKey(seed("another data key"))),
        case("header byte changed to another sound header", "wrong_position", short.replace(b"\x29", b"\x2a", 1)),
        case("salt changed", "tampered", flipped(short, start)),
        case("commitment changed", "tampered", flipped(short, start + 24)),
        case("ciphertext changed", "tampered", flipped(short, start + 56)),
        case("tag changed", "tampered", flipped(short, len(short) - 1)),
        case("another recording", "wrong_position", short, expected=header(recording=RecordingId("rec_" + "0" * 32))),
        case("another index", "wrong_position", short, expected=header(index=42)),
        case("another offset", "wrong_position", short, expected=header(offset=0)),
        case("another attempt", "wrong_position", short, expected=header(attempt="f" * 32)),
        case("another leaf", "wrong_position", short, expected=header(coordinate=coordinate(leaf=8))),
        case(
            "another part",
            "wrong_position",
            short,
            expected=header(part=Part.TRANSCRIPT, coordinate=coordinate(part=Part.TRANSCRIPT)),
        ),
        case("cut inside the preamble", "truncated", short[:6]),
        case("cut inside the header", "truncated", short[:40]),
        case("cut inside the salt", "truncated", short[: start + 20]),
        case("ends on a full chunk", "truncated", long[: start + 56 + 16_400]),
        case("a manifest's magic", "format", raw(sound, magic=b"CVM1")),
        case("a header length of zero", "format", MAGIC + bytes(4) + short[start:]),
        case("a header length of 4097", "format", MAGIC + (4097).to_bytes(4, "big") + bytes(5000)),
        case("version 2", "format", raw(codec.pack(loose))),
        case("a field too many", "format", raw(codec.pack({**header_json(header()), "x": 1}))),
        case("a field too few", "format", raw(codec.pack({"version": 1}))),
        case("a header that is not canonical", "format", raw(sound.replace(b"\x29", b"\xcc\x29", 1))),
        case("true for an integer", "format", raw(codec.pack({**header_json(header()), "index": True}))),
        case(
            "a part its coordinate does not name",
            "format",
            raw(codec.pack({**header_json(header()), "part": "metadata"})),
        ),
    ]
