"""Operations, names and XML of the S3 subset."""

import base64
import hashlib
import zlib

import pytest

from tests.helpers.s3documents import MD5, document
from vault.errors import Forbidden, Invalid, TooLarge
from vault.ids import TokenId, parse_call_key
from vault.model import DataKey
from vault.protocol.s3 import requests
from vault.protocol.s3.body import BodyPlan, ChunkedDecoder, S3Body, WholeChecks, plan_body, whole_checks
from vault.protocol.s3.sigv4 import Claim, RequestHead


@pytest.mark.parametrize(
    ("method", "key", "query", "expected"),
    [
        ("PUT", "k", [("x-id", "PutObject")], "PutObject"),
        ("PUT", "k", [("X-Amz-Signature", "0")], "PutObject"),
        ("POST", "k", [("uploads", "")], "CreateMultipartUpload"),
        ("PUT", "k", [("partNumber", "1"), ("uploadId", "u")], "UploadPart"),
        ("POST", "k", [("uploadId", "u")], "CompleteMultipartUpload"),
        ("DELETE", "k", [("uploadId", "u")], "AbortMultipartUpload"),
        ("GET", "k", [("uploadId", "u"), ("max-parts", "9"), ("part-number-marker", "3")], "ListParts"),
        (
            "GET",
            "",
            [("uploads", ""), ("prefix", "k"), ("delimiter", ""), ("max-uploads", "9")],
            "ListMultipartUploads",
        ),
        ("HEAD", "k", [], "HeadObject"),
        ("HEAD", "", [], "HeadBucket"),
        ("GET", "", [("location", "")], "GetBucketLocation"),
    ],
)
def test_each_operation_has_one_address(method, key, query, expected):
    assert requests.operation(method, key, query, copies=False) == expected


@pytest.mark.parametrize(
    ("method", "key", "query", "copies"),
    [
        ("GET", "k", [], False),
        ("DELETE", "k", [], False),
        ("GET", "", [("list-type", "2")], False),
        ("GET", "", [("prefix", "k")], False),
        ("PUT", "k", [("prefix", "k")], False),
        ("GET", "", [], False),
        ("POST", "", [("delete", "")], False),
        ("PUT", "k", [("acl", "")], False),
        ("PUT", "k", [], True),
        ("PUT", "", [], False),
        ("PUT", "k", [("partNumber", "1"), ("uploadId", "u")], True),
    ],
)
def test_what_does_not_add_a_recording_is_refused(method, key, query, copies):
    with pytest.raises(Forbidden):
        requests.operation(method, key, query, copies=copies)


def test_what_rclone_knows_a_file_by_is_told_again_and_nothing_else():
    said = {"mtime": "1764000000.5", "md5chksum": "1B2M2Y8AsgTpgAmY7PhCfg==", "from": "+442079460123", "own": "x"}
    headers = [(f"X-Amz-Meta-{name}", value) for name, value in said.items()]
    facts, _ = requests.meta_facts(headers)
    assert requests.rclone_headers(facts.extra) == {f"x-amz-meta-{name}": said[name] for name in ("mtime", "md5chksum")}
    assert requests.rclone_headers({}) == {}


NAMES = [
    "call-1",
    "a/b",
    "a=2Fb",
    "a b",
    "a%20b",
    "ä",
    "=sha256=" + "0" * 64,
    "x" * 181,
    "x" * 180,
    "/",
    "a\n",
    "~",
    "A/" * 300,
]


def test_every_key_leads_to_a_call_key_of_its_own():
    keys = [requests.call_key_for(name) for name in NAMES]
    assert len(set(keys)) == len(NAMES)
    for key in keys:
        assert parse_call_key(key + "~100")
    assert requests.call_key_for("call-1") == "call-1"
    assert requests.call_key_for("2026/a b.wav") == "2026=2Fa=20b.wav"


@pytest.mark.parametrize("value", [None, "", "binary/octet-stream", "application/data", "video/mp4", "text/plain"])
def test_a_content_type_that_is_not_of_audio_says_nothing(value):
    assert requests.audio_type(value) is None
    for told in ("Audio/wav", "video/webm", "application/ogg; codecs=opus"):
        assert requests.audio_type(told) == told


def test_the_list_of_parts_is_read_with_and_without_quotes_and_prefixes():
    quoted = document((1, f"&quot;{MD5}&quot;"), (3, MD5.upper()))
    assert [(part.number, part.etag) for part in requests.parse_complete(quoted)] == [(1, MD5), (3, MD5)]
    prefixed = quoted.replace(b"<Part", b"<s:Part").replace(b"</Part", b"</s:Part")
    assert requests.parse_complete(prefixed)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<a/>",
        b"<CompleteMultipartUpload/>",
        document((1, "xx")),
        document((0, MD5)),
        document((1, MD5), root="Other"),
        b'<!DOCTYPE a [<!ENTITY b "c">]>' + document((1, MD5)),
        b"<a>" * 100_000,
        b"<?xml version='1.0' encoding='no-such'?>" + document((1, MD5)),
        document((1, MD5)) + b" " * requests.MAX_XML_BYTES,
        document(*[(1, MD5)] * 10_001),
    ],
)
def test_what_is_no_list_of_parts_is_refused(text):
    with pytest.raises(Invalid):
        requests.parse_complete(text)


def test_parts_come_in_ascending_order():
    with pytest.raises(Invalid) as caught:
        requests.parse_complete(document((2, MD5), (1, MD5)))
    assert caught.value.facts == {"s3": "InvalidPartOrder"}


def test_what_answers_say_is_escaped():
    text = requests.render("R", [("Key", "a<b>&\x00"), ("Part", [("Size", "1")])]).decode()
    assert "<Key>a&lt;b&gt;&amp;\ufffd</Key><Part><Size>1</Size></Part>" in text
    assert b"<Code>SlowDown</Code>" in requests.error_document("SlowDown", "m", request_id="r")


def claim(payload):
    return Claim(access_key="k", scope="s", signed_at=None, signed_headers=(), signature="", payload=payload)


def head(**headers):
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return RequestHead(method="PUT", path="/", query="", headers=named)


AUDIO = b"RIFF" + bytes(range(256)) * 40
CRC = base64.b64encode(zlib.crc32(AUDIO).to_bytes(4, "big")).decode()
CHECKED = {
    "plain": ({"content_length": str(len(AUDIO))}, "UNSIGNED-PAYLOAD"),
    "hash": ({}, hashlib.sha256(AUDIO).hexdigest()),
    "md5": ({"content_md5": base64.b64encode(hashlib.md5(AUDIO).digest()).decode()}, "UNSIGNED-PAYLOAD"),
    "crc32": ({"x_amz_checksum_crc32": CRC}, "UNSIGNED-PAYLOAD"),
    "sha256": (
        {"x_amz_checksum_sha256": base64.b64encode(hashlib.sha256(AUDIO).digest()).decode()},
        "UNSIGNED-PAYLOAD",
    ),
}
BROKEN = {"plain": "IncompleteBody", "hash": "XAmzContentSHA256Mismatch"}


@pytest.mark.parametrize("name", CHECKED)
def test_a_body_is_compared_with_everything_said_about_it(name):
    headers, payload = CHECKED[name]
    body = S3Body(plan_body(head(**headers), claim(payload)), signer=None, limit=1 << 20)
    assert b"".join(body.feed(AUDIO)) == AUDIO
    body.finish()
    changed = S3Body(plan_body(head(**headers), claim(payload)), signer=None, limit=1 << 20)
    changed.feed(AUDIO[:-1] if name == "plain" else AUDIO[:-1] + b"?")
    with pytest.raises(Invalid) as caught:
        changed.finish()
    assert caught.value.facts["s3"] == BROKEN.get(name, "BadDigest")


def test_a_trailing_checksum_is_compared_and_must_come():
    headers = {"x_amz_trailer": "x-amz-checksum-crc32", "x_amz_decoded_content_length": str(len(AUDIO))}
    plan = plan_body(head(**headers), claim("STREAMING-UNSIGNED-PAYLOAD-TRAILER"))
    wire = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n" % (len(AUDIO), AUDIO, CRC.encode())
    good = S3Body(plan, signer=None, limit=1 << 20)
    assert b"".join(good.feed(wire)) == AUDIO
    good.finish()
    assert good.answers == {"x-amz-checksum-crc32": CRC}
    # As minio-go writes it: pkg/signer/request-signature-streaming-unsigned-trailer.go of github.com/minio/minio-go
    longer = S3Body(plan, signer=None, limit=1 << 20)
    assert b"".join(longer.feed(wire.removesuffix(b"\r\n\r\n") + b"\n\r\n\r\n")) == AUDIO
    longer.finish()
    for bad in (
        wire + b"x",
        wire.replace(AUDIO, AUDIO[:-1] + b"?"),
        wire.replace(b"x-amz-checksum-crc32:" + CRC.encode() + b"\r\n", b""),
    ):
        body = S3Body(plan, signer=None, limit=1 << 20)
        body.feed(bad)
        with pytest.raises(Invalid):
            body.finish()


def test_a_checksum_that_cannot_be_compared_is_refused():
    for code, headers in (
        ("NotImplemented", {"x_amz_checksum_whirlpool": CRC}),
        ("NotImplemented", {"x_amz_trailer": "x-amz-checksum-whirlpool"}),
        ("InvalidRequest", {"x_amz_sdk_checksum_algorithm": "CRC32"}),
        ("InvalidDigest", {"x_amz_checksum_crc32": CRC + "-2"}),
    ):
        with pytest.raises(Invalid) as caught:
            plan_body(head(content_length="1", **headers), claim("UNSIGNED-PAYLOAD"))
        assert caught.value.facts["s3"] == code
    about = {"x_amz_checksum_algorithm": "CRC32", "x_amz_checksum_type": "FULL_OBJECT"}
    assert plan_body(head(**about), claim("UNSIGNED-PAYLOAD")).checksums == {}


def test_what_a_completion_states_of_the_whole_is_of_its_bytes_or_of_its_parts_digests():
    digest = base64.b64decode(CRC)
    assert whole_checks(head(x_amz_checksum_crc32=CRC, x_amz_mp_object_size="9"), parts=2) == WholeChecks(
        whole={"crc32": digest}, size=9
    )
    for composite in (
        {"x_amz_checksum_crc32": CRC + "-2"},
        {"x_amz_checksum_crc32": CRC, "x_amz_checksum_type": "COMPOSITE"},
    ):
        assert whole_checks(head(**composite), parts=2) == WholeChecks(composite={"crc32": digest})
    with pytest.raises(Invalid) as caught:
        whole_checks(head(x_amz_checksum_crc32=CRC + "-3"), parts=2)
    assert caught.value.facts["s3"] == "BadDigest"


@pytest.mark.parametrize("surplus", [b"x\r\n", b"\r\n\r\n", b"\r\nx\r\n", b"x" * 2000])
def test_what_follows_the_end_of_a_chunked_body_is_refused(surplus):
    decoder = ChunkedDecoder(signer=None, trailer=False)
    with pytest.raises(Invalid):
        decoder.feed(b"1\r\na\r\n0\r\n\r\n" + surplus)


def test_a_body_is_refused_where_its_bound_is_passed():
    with pytest.raises(TooLarge):
        S3Body(BodyPlan(length=11), signer=None, limit=10)
    body = S3Body(BodyPlan(length=None), signer=None, limit=10)
    body.feed(b"x" * 10)
    with pytest.raises(TooLarge):
        body.feed(b"x")


@pytest.mark.parametrize(
    "payload", ["STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "nonsense", "STREAMING-UNSIGNED-PAYLOAD"]
)
def test_a_mode_that_is_not_offered_is_refused(payload):
    with pytest.raises(Invalid):
        plan_body(head(x_amz_decoded_content_length="1"), claim(payload))


def test_a_secret_opens_for_its_token_and_key_alone():
    from vault.crypto.values import open_secret, seal_secret  # noqa: PLC0415
    from vault.errors import FormatError, Tampered  # noqa: PLC0415

    token, other = (TokenId(f"tok_{digit * 32}") for digit in "01")
    key = DataKey(b"k" * 32)
    sealed = seal_secret(key, token, "secret", nonce=b"n" * 12)
    assert b"secret" not in sealed
    assert open_secret(key, token, sealed) == "secret"
    for wrong in (
        (key, other, sealed),
        (DataKey(b"x" * 32), token, sealed),
        (key, token, sealed[:-1]),
        (key, token, b"\x01"),
    ):
        with pytest.raises(Tampered):
            open_secret(*wrong)
    with pytest.raises(FormatError):
        open_secret(key, token, b"\x02" + sealed[1:])
