"""The vectors as a stranger reads them, with a reader that was written from docs/format.md alone."""

import ast
import hashlib
import json
from pathlib import Path

import pytest

from tests.vectors import certificate_reader, generate, reader
from tests.vectors.encoding import from_json, plaintext_facts
from tests.vectors.reader import Bad


def sound(name, kind=None):
    return [pytest.param(case, id=case["name"]) for case in of_kind(name, kind) if case["outcome"] == "ok"]


def of_kind(name, kind):
    return [case for case in generate.load(name) if case.get("kind") == kind]


def every(name, kind=None):
    return [pytest.param(case, id=case["name"]) for case in of_kind(name, kind)]


def gives(case, act):
    """Check that `act` has the case's outcome; return what it opened."""
    try:
        opened, outcome = act(), "ok"
    except Bad as error:
        opened, outcome = None, str(error)
    assert outcome == case["outcome"]
    return opened


def raw(case, *names):
    found = [from_json(case[name]) for name in names]
    return found if len(found) > 1 else found[0]


def test_the_reader_shares_no_code_with_the_vault():
    for path in (Path(reader.__file__), Path(certificate_reader.__file__), Path(__file__)):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] in ("vault", "cli") for name in names)


@pytest.mark.parametrize("case", sound("segment"))
def test_a_stranger_opens_a_segment(case):
    data = from_json(case["object"])
    header, plain = reader.open_object(raw(case, "data_key"), b"callvault/v1/segment", data)
    assert data[:4] == b"CVS1"
    assert header == case["expected"]
    assert plaintext_facts(plain).items() <= case.items()


@pytest.mark.parametrize("case", sound("manifest"))
def test_a_stranger_opens_a_manifest_and_checks_its_root(case):
    data = from_json(case["object"])
    header, plain = reader.open_object(raw(case, "data_key"), b"callvault/v1/manifest", data)
    body = reader.canonical(plain)
    assert data[:4] == b"CVM1"
    assert (header["recording"], header["coordinate"]) == (case["recording"], case["coordinate"])
    assert [segment[0] for segment in body["segments"]] == [segment[0] for segment in case["manifest"]["segments"]]
    assert merkle_root(body) == body["merkle_root"] == header["merkle_root"]


def merkle_root(body):
    return reader.tree_hash([reader.leaf_hash(segment[5]) for segment in body["segments"]])


@pytest.mark.parametrize("case", every("facts"))
def test_a_stranger_opens_call_facts_and_tells_what_is_wrong_with_others(case):
    opened = gives(case, lambda: reader.open_facts(raw(case, "data_key"), case["recording"], raw(case, "sealed")))
    assert opened == case.get("facts")


@pytest.mark.parametrize("case", sound("notes"))
def test_a_stranger_opens_a_note(case):
    opened = reader.open_note(raw(case, "data_key"), case["recording"], case["seq"], raw(case, "sealed"))
    assert [item.hex() if isinstance(item, bytes) else item for item in opened] == case["note"]


@pytest.mark.parametrize("case", every("uploads", "secret"))
def test_a_stranger_opens_a_recorders_secret_and_tells_what_is_wrong_with_others(case):
    opened = gives(case, lambda: reader.open_token_secret(raw(case, "data_key"), case["token"], raw(case, "sealed")))
    assert opened == case.get("secret")


# The keyring


@pytest.mark.parametrize("case", every("keyring", "root version"))
def test_a_stranger_reads_a_root_version_from_its_file(case):
    opened = gives(case, lambda: reader.root_key(case["version"], raw(case, "file")))
    assert opened is None or opened == tuple(raw(case, "tag", "root_key"))


@pytest.mark.parametrize("case", every("keyring", "wrapped key"))
def test_a_stranger_unwraps_a_key(case):
    root, aad, wrapped = raw(case, "root_key", "aad", "wrapped")
    opened = gives(case, lambda: reader.unwrap(root, case["version"], aad, wrapped))
    assert opened is None or opened == raw(case, "key")


@pytest.mark.parametrize("case", every("keyring", "marker"))
def test_a_stranger_reads_a_replicas_marker(case):
    gives(case, lambda: reader.open_marker(raw(case, "file")))


@pytest.mark.parametrize("case", every("keyring", "head"))
def test_a_stranger_checks_a_head(case):
    def check():
        _, body, mac = reader.read_head(raw(case, "file"))
        reader.check_head(raw(case, "secret"), body, mac)

    gives(case, check)


@pytest.mark.parametrize("case", every("keyring", "index"))
def test_a_stranger_opens_an_index(case):
    place = {**case["place"], "keyring": from_json(case["place"]["keyring"])}
    opened = gives(case, lambda: reader.open_index(raw(case, "secret"), place, raw(case, "file")))
    assert opened is None or reader.pack(opened) == raw(case, "plain")


@pytest.mark.parametrize("case", [*every("keyring", "page"), *every("keyring", "plain page")])
def test_a_stranger_opens_a_page(case):
    if case["kind"] == "plain page":
        gives(case, lambda: reader.read_page(raw(case, "file")))
        return
    place = case["place"]
    key, keyring = raw(case, "page_key"), from_json(place["keyring"])
    opened = gives(case, lambda: reader.open_page(key, keyring, place["tenant"], raw(case, "file")))
    assert opened is None or opened == reader.read_page(raw(case, "plain"))


@pytest.mark.parametrize("case", every("ggm"))
def test_a_stranger_walks_a_tree(case):
    nodes = {(depth, prefix): bytes.fromhex(seed) for depth, prefix, seed in case["cover"]}
    key = gives(case, lambda: reader.leaf_key(nodes, case["leaf"]))
    assert key is None or key == raw(case, "key")


# The journal


@pytest.mark.parametrize("case", every("journal"))
def test_a_stranger_replays_a_journal(case):
    def data_key(recording, _):
        material = case["data_keys"][recording]
        if material is None:
            raise Bad("shredded")
        return bytes.fromhex(material)

    files = [from_json(file) for file in case["files"]]
    if case["outcome"] == "format":
        with pytest.raises(Bad, match="format"):
            reader.Journal(files, data_key)
        return
    journal = reader.Journal(files, data_key)
    found = []
    for recording, (first, records, ended) in sorted(journal.recordings.items()):
        audio = b"".join(piece for _, _, piece in records)
        found.append(
            {
                "recording": recording,
                "first_offset": first,
                "durable": first + len(audio),
                "ended": ended,
                **plaintext_facts(audio),
            }
        )
    assert found == case["recordings"]
    assert bool(journal.damaged) == (case["outcome"] in ("tampered", "wrong_position"))


# Certificates


def published_texts():
    """The texts of each version that the document prints; its rule C17."""
    return certificate_reader.printed_texts((Path(__file__).parents[2] / "docs/certificates.md").read_text())


@pytest.mark.parametrize("case", every("certificates"))
def test_a_stranger_verifies_a_certificate_its_signature_and_its_batch(case):
    def verify():
        document, batch = reader.verify_certificate(case["jws"], raw(case, "issuer"), published_texts())
        if "objects" in case:
            try:
                certificate_reader.check_list(case["objects"].encode(), document)
            except certificate_reader.Bad as error:
                raise Bad(str(error)) from error
        return document, batch

    opened = gives(case, verify)
    if opened is not None:
        document, batch = opened
        assert document == json.loads(case["document"])
        expected = case.get("batch")
        assert (batch is None) == (expected is None)
        assert batch is None or (batch["size"], batch["root"]) == (expected["size"], expected["root"])


# Everything


def under(files, prefix):
    return {path.removeprefix(prefix): data for path, data in files.items() if path.startswith(prefix)}


def opens(files, data_key, path):
    """Return header and plaintext of a segment's file."""
    return reader.open_object(data_key, b"callvault/v1/segment", reader.object_of(files[path]))


def finished(files, place, coordinate, data_key):
    manifest = reader.object_of(files[f"{place}manifest#object"])
    _, plain = reader.open_object(data_key, b"callvault/v1/manifest", manifest)
    body = reader.canonical(plain)
    assert body["coordinate"] == coordinate
    audio = b""
    for name, index, offset, length, size, sha256 in body["segments"]:
        data = reader.object_of(files[f"objects/{name}#object"])
        assert (len(data), hashlib.sha256(data).digest(), offset) == (size, sha256, len(audio))
        header, piece = reader.open_object(data_key, b"callvault/v1/segment", data)
        assert (header["index"], header["offset"], len(piece)) == (index, offset, length)
        audio += piece
    assert hashlib.sha256(audio).digest() == body["sha256"]
    return audio


def unfinished(files, place, journal, recording, data_key):
    """Chain the segments, then go on with the journal; returns the audio and how much of it is stored."""
    by_index = {}
    for path in sorted(path for path in files if path.startswith(place)):
        header, piece = opens(files, data_key, path)
        by_index.setdefault(header["index"], []).append((header["offset"], piece))
    audio = b""
    for index in range(len(by_index)):
        following = {offset for offset, _ in by_index.get(index + 1, [])}
        fitting = [piece for offset, piece in by_index[index] if offset == len(audio)]
        audio += max((len(audio) + len(piece) in following, len(piece), piece) for piece in fitting)[2]
    stored = len(audio)
    first, records, _ = journal.recordings[recording]
    if first <= stored:
        audio += b"".join(piece for _, _, piece in records)[stored - first :]
    return audio, stored


@pytest.mark.parametrize("case", every("journey"))
def test_a_stranger_goes_from_the_root_version_to_the_audio_through_every_file(case):
    files = {path: from_json(data) for path, data in case["files"].items()}
    keyring = reader.Keyring(under(files, "root-keys/"), under(files, "keyring-a/"))
    stores = under(files, "objects/")
    assert stores["CALLVAULT-OBJECTS"] == b"callvault objects 1\n"
    journal = reader.Journal(list(under(files, "journal/").values()), lambda _, place: keyring.data_key(place))
    for row, expected in zip(case["rows"], case["recordings"], strict=True):
        recording = "rec_" + row["id"]
        assert recording == expected["id"]
        audio, month = (
            [row["tenant"], part, *(row[f"{part}_{each}"] for each in ("period", "generation", "leaf"))]
            for part in ("audio", "metadata")
        )
        facts = reader.open_facts(keyring.data_key(month), recording, bytes.fromhex(row["sealed_facts"]))
        assert facts == expected["facts"]
        index = keyring.data_key([*month[:4], reader.LAST_LEAF])
        said = {"call": facts["extra"]["call_key"], "caller": facts["caller"], "called": facts["called"]}
        for name, value in said.items():
            field = "call_key" if name == "call" else name
            assert row[f"{name}_token"] == reader.token(index, field, value)
        data_key = gives(expected, lambda place=audio: keyring.data_key(place))
        if data_key is None:
            continue
        place = f"objects/v1/{row['tenant']}/{row['audio_period']}/{recording}/"
        if row["state"] == "open":
            heard, stored = unfinished(stores, place, journal, recording, data_key)
            assert stored == expected["stored"]
        else:
            heard = finished(stores, place, audio, data_key)
        assert plaintext_facts(heard).items() <= expected.items()
        notes = [
            reader.open_note(data_key, recording, each["seq"], bytes.fromhex(each["sealed"]))
            for each in case["recording_notes"]
            if each["recording"] == row["id"]
        ]
        assert notes == expected.get("notes", [])
