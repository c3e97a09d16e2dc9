"""Journal directories: sound ones, ones a crash tore, damaged ones; each with what a replay hands out."""

import hashlib

from tests.vectors.encoding import plaintext_facts, seed, to_json
from vault.crypto.journal import RecordKey
from vault.format.journal import DATA, END, FileHeader, Opening, encode_header, encode_opening, encode_reason
from vault.ids import RecordingId, parse_tenant
from vault.model import Cohort, Coordinate, DataKey, Part

NAME = "journal"
ABOUT = (
    "Journal files in creation order, as hex; in a list, a number is that many zero bytes. `data_keys` gives each "
    "recording's data key, or null if it is shredded. `recordings` is what a replay hands out. Outcome `truncated`: "
    "a crash tore the last file; `tampered` and `wrong_position`: a file is damaged and must be kept."
)

KEYS = {"a": DataKey(seed("journal data key a")), "b": DataKey(seed("journal data key b"))}
IDS = {
    "a": RecordingId("rec_018f3a5c7d2e7b3a9c4d5e6f70819203"),
    "b": RecordingId("rec_018f3a5c7d2e7b3a9c4d5e6f70819204"),
}
AUDIO = {name: seed(f"journal audio {name}", 600) for name in IDS}


class File:
    """Builds one file's bytes; each method adds one record."""

    def __init__(self, number):
        self.salt = seed(f"journal salt {number}")
        self.records = [encode_header(FileHeader(number=number, created_ms=1_764_000_000_123, salt=self.salt))]
        self.keys = {}

    def open(self, name, offset=0, released=0):
        key = RecordKey(KEYS[name], salt=self.salt, handle=len(self.keys) + 1)
        self.keys[name] = [key, 0, offset]
        cohort = Cohort(tenant=parse_tenant("northgate"), part=Part.AUDIO, period=20_512, generation=3)
        opening = Opening(
            recording=IDS[name],
            coordinate=Coordinate(cohort=cohort, leaf=ord(name)),
            offset=offset,
            released=released,
        )
        self.records.append(b"".join(key.seal_opening(encode_opening(opening))))
        return self

    def _seal(self, name, kind, plaintext):
        state = self.keys[name]
        state[1] += 1
        self.records.append(b"".join(state[0].seal(kind, state[1], plaintext, len(plaintext))))
        return self

    def data(self, name, size):
        start = self.keys[name][2]
        self.keys[name][2] += size
        return self._seal(name, DATA, AUDIO[name][start : start + size])

    def end(self, name, reason):
        return self._seal(name, END, encode_reason(reason))

    def __bytes__(self):
        return b"".join(self.records)


def two_calls(number=1):
    return File(number).open("a").data("a", 100).open("b").data("b", 50).data("a", 100).data("b", 60)


def found(name, end, *, first=0, ended=None):
    return {
        "recording": IDS[name],
        "first_offset": first,
        "durable": end,
        "ended": ended,
        **plaintext_facts(AUDIO[name][first:end]),
    }


def case(name, outcome, files, recordings, *, shredded=()):
    return {
        "name": name,
        "outcome": outcome,
        "data_keys": {IDS[each]: None if each in shredded else KEYS[each].material.hex() for each in sorted(KEYS)},
        "files": [to_json(bytes(file)) for file in files],
        "recordings": recordings,
    }


def changed(file, index, spot):
    """Return a file's bytes with the lowest bit of one byte of one record flipped."""
    records = list(file.records)
    record = bytearray(records[index])
    record[spot] ^= 1
    records[index] = bytes(record)
    return b"".join(records)


def exchanged(file, one, other):
    """Return a file's bytes with two of its records in each other's place."""
    records = list(file.records)
    records[one], records[other] = records[other], records[one]
    return b"".join(records)


def cases():
    whole = [found("a", 200), found("b", 110)]
    ended = two_calls().end("b", "truncated:recorder_gone")
    second = File(2).open("a", offset=200, released=150).data("a", 300).end("a", "sealed")
    later_version = bytearray(bytes(two_calls()))
    return [
        case("two calls share a file", "ok", [two_calls()], whole),
        case("the rest of an allocated file is zeroes", "ok", [bytes(two_calls()) + bytes(4096)], whole),
        case("one call has ended", "ok", [ended], [found("a", 200), found("b", 110, ended="truncated:recorder_gone")]),
        case(
            "a call continues in a second file, its beginning released",
            "ok",
            [two_calls(), second],
            [found("a", 500, first=100, ended="sealed"), found("b", 110)],
        ),
        case(
            "a call starts over at its stored end",
            "ok",
            [two_calls(), File(2).open("a", offset=130, released=130).data("a", 20)],
            [found("a", 150, first=130), found("b", 110)],
        ),
        case(
            "bytes of a failed commit landed, and the call went on from before them",
            "ok",
            [two_calls(), File(2).open("a", offset=100).data("a", 60)],
            [found("a", 160), found("b", 110)],
        ),
        case(
            "the file between was removed, so its bytes were released",
            "ok",
            [two_calls(), File(3).open("a", offset=300).data("a", 100)],
            [found("a", 400, first=300), found("b", 110)],
        ),
        case("one recording is shredded", "shredded", [two_calls()], [found("b", 110)], shredded="a"),
        case(
            "records of a shredded recording are no evidence of damage before them",
            "truncated",
            [changed(File(1).open("a").data("a", 100).open("b").data("b", 50).data("a", 100), 4, 40)],
            [found("b", 0)],
            shredded="a",
        ),
        case(
            "one recording is shredded, and a record of the other is changed",
            "tampered",
            [changed(two_calls(), 4, 40)],
            [found("b", 0)],
            shredded="a",
        ),
        case("the last record is cut", "truncated", [bytes(two_calls())[:-1]], [found("a", 200), found("b", 50)]),
        case(
            "the last record is half zeroes",
            "truncated",
            [bytes(two_calls())[:-40] + bytes(400)],
            [found("a", 200), found("b", 50)],
        ),
        case("the header is cut", "truncated", [bytes(two_calls())[:63]], []),
        case(
            "a bit of audio is changed",
            "tampered",
            [changed(two_calls(), 2, 40)],
            [found("a", 0), found("b", 110)],
        ),
        case(
            "a length is changed",
            "tampered",
            [changed(two_calls(), 2, 2)],
            [found("a", 0), found("b", 110)],
        ),
        case(
            "a sequence number is changed",
            "tampered",
            [changed(two_calls(), 5, 16)],
            [found("a", 100), found("b", 110)],
        ),
        case("an opening is changed", "tampered", [changed(two_calls(), 1, 60)], [found("b", 110)]),
        case("a header is changed", "tampered", [changed(two_calls(), 0, 30)], []),
        case(
            "two records are exchanged",
            "wrong_position",
            [exchanged(two_calls(), 2, 5)],
            [found("a", 0), found("b", 110)],
        ),
        case("a later version", "format", [with_version(later_version, 2)], []),
    ]


def with_version(data, version):
    """Return a file of another version whose header is whole."""
    data[4:8] = version.to_bytes(4, "big")
    data[56:64] = hashlib.sha256(data[:56]).digest()[:8]
    return data
