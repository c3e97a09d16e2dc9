"""Manifest objects and sealed call facts."""

import hashlib

from tests.vectors.encoding import seed, to_json
from tests.vectors.make_chunked import flipped
from tests.vectors.make_segment import KEY, RECORDING, coordinate
from vault.crypto import chunked
from vault.crypto.derive import Purpose, subkey
from vault.crypto.sealed import seal_manifest
from vault.format import codec
from vault.format.manifest import (
    CatalogCopy,
    Gap,
    Manifest,
    ManifestSegment,
    encode_manifest,
    manifest_frame,
    merkle_root,
)
from vault.format.names import segment_name
from vault.format.notes import Document, Missing, Pause, Tone
from vault.ids import RecordingId
from vault.model import Codec, Container, Media, Part

NAME = "manifest"
ABOUT = (
    "Whole manifest objects. `recording` and `coordinate` say whose manifest it must be; `manifest` is the decoded "
    "body, with byte strings in hex."
)

SALT = seed("manifest salt", 24)


def segment(index, offset, length):
    where = coordinate()
    name = segment_name(where.cohort.tenant, where.cohort.period, RECORDING, index, seed(f"attempt {index}", 16).hex())
    return ManifestSegment(
        name=name,
        index=index,
        offset=offset,
        length=length,
        object_bytes=length + 400,
        sha256=hashlib.sha256(seed(f"object {index}")).hexdigest(),
    )


def manifest(*, segments=(), **changes):
    fields = {
        "recording": RECORDING,
        "coordinate": coordinate(),
        "state": "sealed",
        "reason": None,
        "media": Media(
            container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=2, channel_map=("caller", "callee")
        ),
        "started_ms": 1_764_000_000_000,
        "ended_ms": 1_764_000_600_000,
        "length": sum(item.length for item in segments),
        "sha256": hashlib.sha256(b"").hexdigest(),
        "gaps": (),
        "segments": tuple(segments),
        "merkle_root": merkle_root([bytes.fromhex(item.sha256) for item in segments]),
    }
    return Manifest(**(fields | changes))


def three():
    """Return a manifest that uses every field."""
    return manifest(
        segments=[segment(0, 0, 100), segment(1, 100, 16_384), segment(4, 16_484, 1)],
        state="truncated",
        reason="the recorder did not come back",
        gaps=(Gap(offset=100, missing_ms=2_000), Gap(offset=16_485, missing_ms=20)),
        catalog=CatalogCopy(
            call_key="pbx7~1764000000.42",
            metadata=coordinate(part=Part.METADATA),
            created_ms=1_764_000_000_001,
            retain_until_ms=1_771_776_000_000,
            retention_class="default",
            sealed_facts=seed("facts", 40),
        ),
    )


def noted():
    """Return a manifest with a note of each kind."""
    at = 1_764_000_000_500
    return manifest(
        segments=[segment(0, 0, 100)],
        gaps=(Gap(offset=40, missing_ms=4_340), Gap(offset=80, missing_ms=20)),
        notes=(
            Document(offset=0, at_ms=at, media_type="text/xml", content=b"<recording/>"),
            Pause(offset=40, at_ms=at, missing_ms=4_000, dropped=32_000, lasting=False),
            Missing(offset=40, at_ms=at + 1, missing_ms=340),
            Tone(offset=41, at_ms=at + 2, digit="5", duration_ms=120),
            Missing(offset=80, at_ms=at + 3, missing_ms=20),
        ),
    )


def plain_json(value):
    match value:
        case bytes():
            return value.hex()
        case list():
            return [plain_json(item) for item in value]
        case dict():
            return {key: plain_json(item) for key, item in value.items()}
    return value


def case(name, outcome, data, *, recording=RECORDING, where=None, opened=None):
    found = {
        "name": name,
        "outcome": outcome,
        "data_key": KEY.material.hex(),
        "recording": recording,
        "coordinate": codec.encode_coordinate(where or coordinate()),
        "object": to_json(data),
    }
    return found if opened is None else found | {"manifest": plain_json(codec.unpack(encode_manifest(opened)))}


def raw(change, of=None):
    """Return an object whose sealed body was changed by `change` before it was sealed under the sound header."""
    of = of or three()
    body = codec.unpack(encode_manifest(of))
    change(body)
    head, context = manifest_frame(of.header)
    return chunked.seal(subkey(KEY, Purpose.MANIFEST), SALT, context, codec.pack(body), head=head)


def put(key, value):
    return lambda body: body.__setitem__(key, value)


def cases():
    sound = seal_manifest(KEY, three(), salt=SALT)
    other = seal_manifest(KEY, manifest(segments=[segment(0, 0, 5)]), salt=SALT)
    head, context = manifest_frame(three().header)
    start = len(head)
    mismatched = chunked.seal(
        subkey(KEY, Purpose.MANIFEST), SALT, context, encode_manifest(manifest(segments=[segment(0, 0, 5)])), head=head
    )
    return [
        case("truncated call with gaps", "ok", sound, opened=three()),
        case("one segment", "ok", other, opened=manifest(segments=[segment(0, 0, 5)])),
        case("nothing was recorded", "ok", seal_manifest(KEY, manifest(), salt=SALT), opened=manifest()),
        case("Merkle root in the header changed", "tampered", flipped(sound, sound.index(b"\xa9recording") - 1)),
        case("body changed", "tampered", flipped(sound, start + 60)),
        case("a sealed body under another header", "tampered", other[:start] + sound[start:]),
        case("another recording", "wrong_position", sound, recording=RecordingId("rec_" + "0" * 32)),
        case("another leaf", "wrong_position", sound, where=coordinate(leaf=9)),
        case("last byte missing", "tampered", sound[:-1]),
        case("cut inside the salt", "truncated", sound[: start + 10]),
        case("a segment's magic", "format", b"CVS1" + sound[4:]),
        case("a sound body under the header of another", "format", mismatched),
        case("a hole between segments", "format", raw(lambda body: body["segments"].pop(1))),
        case("segments in another order", "format", raw(lambda body: body["segments"].reverse())),
        case("a length beyond the segments", "format", raw(put("length", 16_486))),
        case("a sealed state that is unknown", "format", raw(put("state", "open"))),
        case("truncated without a reason", "format", raw(put("reason", None))),
        case("another Merkle root than the segments'", "format", raw(put("merkle_root", bytes(32)))),
        case("another recording inside", "format", raw(put("recording", "rec_" + "0" * 32))),
        case("gaps out of order", "format", raw(lambda body: body["gaps"].reverse())),
        case("notes of every kind", "ok", seal_manifest(KEY, noted(), salt=SALT), opened=noted()),
        case("an empty list of notes", "format", raw(put("notes", []))),
        case("notes out of order", "format", raw(lambda body: body["notes"].reverse(), noted())),
        case("a note beyond the end", "format", raw(put("notes", [["gap", 101, 0, 1]]), noted())),
        case("a note of no kind", "format", raw(put("notes", [["mark", 0, 0, 1]]))),
        case("a pause that counts with true", "format", raw(put("notes", [["pause", 0, 0, True, 0, False]]))),
        case("an unknown codec", "format", raw(lambda body: body["media"].__setitem__("codec", "opus?"))),
    ]
