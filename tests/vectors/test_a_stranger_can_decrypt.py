"""A decryptor written from docs/format.md alone: it shares no code with the vault, only the document."""

import hashlib
import hmac

import msgpack
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors import generate
from tests.vectors.encoding import from_json, plaintext_facts


def expand(key, info, length):
    """HKDF-Expand, RFC 5869 section 2.3, with SHA-512."""
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.digest(key, block + info + bytes([counter]), "sha512")
        output, counter = output + block, counter + 1
    return output[:length]


def subkey(data_key, label):
    return expand(data_key, label + b"\0", 32)


def open_chunks(input_key, context, message):
    salt, commitment, chunks = message[:24], message[24:56], message[56:]
    info = b"c2sp.org/chunked-encryption@v1+" + b"AEAD_AES_256_GCM" + b"\0" + salt + context
    derived = expand(input_key, info, 76)
    assert hmac.compare_digest(derived[44:], commitment)
    aead, base, plain = AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big"), []
    for number in range(len(chunks) // 16_400 + 1):
        chunk = chunks[number * 16_400 : (number + 1) * 16_400]
        plain.append(aead.decrypt((base ^ number).to_bytes(12, "big"), chunk, None))
    assert len(plain[-1]) < 16_384
    return b"".join(plain)


def open_object(data_key, label, data):
    length = int.from_bytes(data[4:8], "big")
    header = data[8 : 8 + length]
    return msgpack.unpackb(header), open_chunks(subkey(data_key, label), header, data[8 + length :])


def tree_hash(leaves):
    if len(leaves) < 2:
        return hashlib.sha256(b"\0" + leaves[0]).digest() if leaves else hashlib.sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree_hash(leaves[:split]) + tree_hash(leaves[split:])).digest()


def sound(name):
    return [pytest.param(case, id=case["name"]) for case in generate.load(name) if case["outcome"] == "ok"]


@pytest.mark.parametrize("case", sound("segment"))
def test_a_stranger_opens_a_segment(case):
    data = from_json(case["object"])
    header, plain = open_object(bytes.fromhex(case["data_key"]), b"callvault/v1/segment", data)
    assert data[:4] == b"CVS1"
    assert header == case["expected"]
    assert plaintext_facts(plain).items() <= case.items()


@pytest.mark.parametrize("case", sound("manifest"))
def test_a_stranger_opens_a_manifest_and_checks_its_root(case):
    data = from_json(case["object"])
    header, plain = open_object(bytes.fromhex(case["data_key"]), b"callvault/v1/manifest", data)
    body = msgpack.unpackb(plain)
    assert data[:4] == b"CVM1"
    assert (header["recording"], header["coordinate"]) == (case["recording"], case["coordinate"])
    assert [segment[0] for segment in body["segments"]] == [segment[0] for segment in case["manifest"]["segments"]]
    assert tree_hash([segment[5] for segment in body["segments"]]) == body["merkle_root"] == header["merkle_root"]


@pytest.mark.parametrize("case", sound("facts"))
def test_a_stranger_opens_call_facts(case):
    sealed = bytes.fromhex(case["sealed"])
    aead = AESGCM(subkey(bytes.fromhex(case["data_key"]), b"callvault/v1/facts"))
    plain = aead.decrypt(sealed[1:13], sealed[13:], b"\x01" + case["recording"].encode())
    assert msgpack.unpackb(plain) == case["facts"]


@pytest.mark.parametrize("case", sound("notes"))
def test_a_stranger_opens_a_note(case):
    sealed = bytes.fromhex(case["sealed"])
    aead = AESGCM(subkey(bytes.fromhex(case["data_key"]), b"callvault/v1/note"))
    place = b"\x01" + case["recording"].encode() + case["seq"].to_bytes(4, "big")
    opened = msgpack.unpackb(aead.decrypt(sealed[1:13], sealed[13:], place))
    assert [item.hex() if isinstance(item, bytes) else item for item in opened] == case["note"]
