"""A whole vault directory in miniature: from the root-version file to the audio, through every file between."""

import hashlib
from datetime import UTC, datetime

from tests.vectors.encoding import plaintext_facts, seed, to_json
from tests.vectors.make_keyring import ID, SECRET, VERSION, root_file, root_marker, wrap
from vault.crypto import ggm, spans, values
from vault.crypto.journal import RecordKey
from vault.crypto.sealed import seal_facts, seal_manifest, seal_segment
from vault.crypto.values import seal_note
from vault.format import keyring as fmt
from vault.format.journal import DATA, FileHeader, Opening, encode_header, encode_opening
from vault.format.manifest import Manifest, ManifestSegment, merkle_root
from vault.format.names import manifest_name
from vault.format.notes import Tone
from vault.format.segment import SegmentHeader
from vault.ids import RecordingId, TenantId, id_bytes
from vault.keystore import sealing
from vault.model import INDEX_LEAF, CallFacts, Codec, Cohort, Container, Coordinate, DataKey, Media, Part
from vault.ports.objects import ObjectMeta
from vault.storage.objects import tree

NAME = "journey"
ABOUT = (
    "The files of a vault, by path, as hex (a number in a list is that many zero bytes), and the catalog's rows of its "
    "recordings, with the columns that a reader needs; bytes in rows are hex. `recordings` is what a reader that has "
    "nothing else gets: audio, facts and notes; of the open one `stored` bytes lie in segments and the rest in the "
    "journal. The tokens in the rows follow from the facts. Outcome `shredded`: the keyring has no key for the audio."
)

TENANT = TenantId("northgate")
AUDIO = Cohort(tenant=TENANT, part=Part.AUDIO, period=20_512, generation=3)
MONTH = Cohort(tenant=TENANT, part=Part.METADATA, period=24_312, generation=3)
TREES = {
    AUDIO: ggm.puncture(ggm.plant(seed("journey audio tree")), spans.points([6])),
    MONTH: ggm.plant(seed("journey month tree")),
}
RECORDINGS = {leaf: RecordingId(f"rec_018f3a5c7d2e7b3a9c4d5e6f7081{leaf:04x}") for leaf in (5, 6, 7)}
SEALED, GONE, OPEN = 5, 6, 7
FACTS = CallFacts(
    caller="+441632960001", called="+441632960999", direction="in", tags=("clearing",), extra={"call_key": "pbx-17"}
)
MEDIA = Media(container=Container.RAW, codec=Codec.PCMU, rate=8000, channels=1)
CREATED_MS = 1_764_000_000_000


def sound(leaf, length):
    return seed(f"journey audio {leaf}", length)


def key_of(cohort, leaf):
    material = ggm.leaf_key(TREES[cohort], leaf)
    # The shredded recording was stored when it still had a key.
    return DataKey(material or ggm.leaf_key(ggm.plant(seed("journey audio tree")), leaf))


def keyring():
    """Return the files of one replica and of the root-key directory."""
    page = fmt.PageRecord(
        tenant=TENANT,
        cohorts={cohort: cover.nodes for cohort, cover in TREES.items()},
        pins={AUDIO: {seed("journey hold", 16): ((SEALED, SEALED),)}},
    )
    page_key = seed("journey page key")
    sealed_page = sealing.seal_page(page_key, ID, page)
    names = {name: seed(f"journey {name}", 16).hex() for name in ("page", "index")}
    ref = fmt.PageRef(tenant=TENANT, name=names["page"], sha256=hashlib.sha256(sealed_page).digest(), key=page_key)
    index = fmt.Index(
        keyring=ID,
        epoch=3,
        revision=0,
        fence=1,
        generation=3,
        last_sweep_ms=CREATED_MS,
        swept_through=20_400,
        cohort_width_ms=86_400_000,
        lease_ms=15_000,
        backup_key=seed("journey backup key"),
        pages=(ref,),
    )
    sealed_index = sealing.seal_index(SECRET, index, seed("journey index salt"))
    head = fmt.Head(
        keyring=ID,
        fence=1,
        epoch=3,
        revision=0,
        root=VERSION,
        wrapped=wrap(),
        index=names["index"],
        index_sha256=hashlib.sha256(sealed_index).digest(),
    )
    return {
        "root-keys/ROOT-KEYS": root_marker(),
        f"root-keys/{VERSION}": root_file(),
        "keyring-a/REPLICA": fmt.encode_marker(ID),
        "keyring-a/head": fmt.encode_head(head, sealing.head_mac(SECRET, head)),
        f"keyring-a/index/{names['index']}": sealed_index,
        f"keyring-a/pages/{names['page']}": sealed_page,
    }


def stored(name, data, *, held=False):
    """Return the file of one object."""
    meta = ObjectMeta(
        retain_until=datetime(2026, 2, 28, tzinfo=UTC),
        retention_class="recording",
        sha256=hashlib.sha256(data).hexdigest(),
        held=held,
    )
    return {f"objects/objects/{name}#object": tree.encode_header(meta) + data}


def segment(leaf, index, start, end, *, attempt):
    """Return a segment's name and object."""
    header = SegmentHeader(
        recording=RECORDINGS[leaf],
        part=Part.AUDIO,
        index=index,
        offset=start,
        attempt=seed(attempt, 16).hex(),
        coordinate=Coordinate(cohort=AUDIO, leaf=leaf),
        created_ms=CREATED_MS,
    )
    audio = sound(leaf, end)[start:]
    return header.name, bytes(seal_segment(key_of(AUDIO, leaf), header, audio, salt=seed(f"salt {attempt}", 24)))


def finished(leaf):
    """Return the objects of a sealed recording of two segments."""
    pieces = [(0, 0, 400), (1, 400, 700)]
    made = [segment(leaf, index, start, end, attempt=f"{leaf}/{index}") for index, start, end in pieces]
    listed = tuple(
        ManifestSegment(
            name=name,
            index=index,
            offset=start,
            length=end - start,
            object_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        for (index, start, end), (name, data) in zip(pieces, made, strict=True)
    )
    manifest = Manifest(
        recording=RECORDINGS[leaf],
        coordinate=Coordinate(cohort=AUDIO, leaf=leaf),
        state="sealed",
        reason=None,
        media=MEDIA,
        started_ms=CREATED_MS,
        ended_ms=CREATED_MS + 87,
        length=700,
        sha256=hashlib.sha256(sound(leaf, 700)).hexdigest(),
        gaps=(),
        segments=listed,
        merkle_root=merkle_root([bytes.fromhex(each.sha256) for each in listed]),
    )
    files = {}
    for name, data in made:
        files |= stored(name, data, held=leaf == SEALED)
    name = manifest_name(TENANT, AUDIO.period, RECORDINGS[leaf])
    whole = bytes(seal_manifest(key_of(AUDIO, leaf), manifest, salt=seed(f"manifest {leaf}", 24)))
    return files | stored(name, whole, held=leaf == SEALED)


def unfinished():
    """Return a stored segment beside a longer attempt that a crash left, another behind it, and the journal."""
    files = {}
    for index, start, end, attempt in [(0, 0, 300, "a"), (0, 0, 350, "left over"), (1, 300, 500, "b")]:
        files |= stored(*segment(OPEN, index, start, end, attempt=attempt))
    salt = seed("journey journal salt")
    key = RecordKey(key_of(AUDIO, OPEN), salt=salt, handle=1)
    opening = Opening(
        recording=RECORDINGS[OPEN], coordinate=Coordinate(cohort=AUDIO, leaf=OPEN), offset=400, released=300
    )
    records = [encode_header(FileHeader(number=9, created_ms=CREATED_MS, salt=salt))]
    records.append(b"".join(key.seal_opening(encode_opening(opening))))
    for seq, (start, end) in enumerate([(400, 450), (450, 620)], 1):
        piece = sound(OPEN, end)[start:]
        records.append(b"".join(key.seal(DATA, seq, piece, len(piece))))
    return files | {"journal/journal-000000000009.cvj": b"".join(records) + bytes(512)}


def row(leaf, state):
    identifier = RECORDINGS[leaf]
    month = key_of(MONTH, leaf)
    index = DataKey(ggm.leaf_key(TREES[MONTH], INDEX_LEAF))
    tokens = {
        field: values.token(index, values.Field(field), value)
        for field, value in [("call_key", "pbx-17"), ("caller", FACTS.caller), ("called", FACTS.called)]
    }
    return {
        "id": id_bytes(identifier).hex(),
        "tenant": TENANT,
        "state": state,
        "audio_period": AUDIO.period,
        "audio_generation": AUDIO.generation,
        "audio_leaf": leaf,
        "metadata_period": MONTH.period,
        "metadata_generation": MONTH.generation,
        "metadata_leaf": leaf,
        "sealed_facts": seal_facts(month, identifier, FACTS, nonce=seed(f"facts {leaf}", 12)).hex(),
        "call_token": tokens["call_key"],
        "caller_token": tokens["caller"],
        "called_token": tokens["called"],
    }


def recording(leaf, outcome, length=0, **more):
    found = {
        "id": RECORDINGS[leaf],
        "outcome": outcome,
        "facts": {
            "caller": FACTS.caller,
            "called": FACTS.called,
            "direction": FACTS.direction,
            "tags": list(FACTS.tags),
            "extra": dict(FACTS.extra),
        },
        **more,
    }
    return found | (plaintext_facts(sound(leaf, length)) if outcome == "ok" else {})


def cases():
    tone = seal_note(
        key_of(AUDIO, OPEN), RECORDINGS[OPEN], 0, Tone(offset=10, at_ms=CREATED_MS, digit="5"), nonce=seed("note", 12)
    )
    files = keyring() | {"objects/CALLVAULT-OBJECTS": b"callvault objects 1\n"} | finished(SEALED) | finished(GONE)
    return [
        {
            "name": "a vault with a sealed, a shredded and an open recording",
            "outcome": "ok",
            "files": {path: to_json(data) for path, data in sorted((files | unfinished()).items())},
            "rows": [row(SEALED, "sealed"), row(GONE, "sealed"), row(OPEN, "open")],
            "recording_notes": [
                {"recording": id_bytes(RECORDINGS[OPEN]).hex(), "seq": 0, "sealed": tone.hex()},
            ],
            "recordings": [
                recording(SEALED, "ok", 700),
                recording(GONE, "shredded"),
                recording(OPEN, "ok", 620, stored=500, notes=[["dtmf", 10, CREATED_MS, "5", None]]),
            ],
        }
    ]
