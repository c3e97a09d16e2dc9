"""Signatures against the published examples.

`suite`: AWS's Signature Version 4 test suite (aws-sig-v4-test-suite, key AKIDEXAMPLE); `s3`: the worked examples of the
Amazon S3 API reference (key AKIAIOSFODNN7EXAMPLE), chunked uploads and the trailer among them.
"""

import hashlib
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest

from tests.helpers.sigv4 import DATE, HOST, NOW, PRESIGNED, S3, SCOPE, SECRET, authorized, streaming
from vault.errors import Forbidden, Invalid, Unauthenticated
from vault.protocol.s3.body import ChunkedDecoder
from vault.protocol.s3.checksums import ALGORITHMS
from vault.protocol.s3.sigv4 import (
    ALGORITHM,
    EMPTY_SHA256,
    ChunkSigner,
    RequestHead,
    canonical_request,
    is_signed,
    read_claim,
    sign,
    signing_key,
    verify,
)

SUITE_HEADERS = [("Host", "example.amazonaws.com"), ("X-Amz-Date", "20150830T123600Z")]
SUITE = {
    "get-vanilla": ("GET", "", [], "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "get-vanilla-query-order-key-case": (
        "GET",
        "Param2=value2&Param1=value1",
        [],
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "post-vanilla": ("POST", "", [], "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "get-header-value-trim": (
        "GET",
        "",
        [("My-Header1", " value1"), ("My-Header2", ' "a   b   c"')],
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
}
STREAMED = "content-encoding;%shost;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class"
CHUNKED = STREAMED % "content-length;"
TRAILED = STREAMED % "" + ";x-amz-trailer"


def signer(head):
    claim = read_claim(head)
    return ChunkSigner(claim, verify(claim, head, SECRET, now=NOW))


@pytest.mark.parametrize(("head", "signature"), S3)
def test_the_worked_examples_verify_and_nothing_else_does(head, signature):
    right = authorized(head, signature)
    verify(read_claim(right), right, SECRET, now=NOW)
    for changed in (
        RequestHead(method="POST", path=right.path, query=right.query, headers=right.headers),
        RequestHead(method=right.method, path=right.path + "x", query=right.query, headers=right.headers),
        RequestHead(method=right.method, path=right.path, query=right.query + "&a", headers=right.headers),
        authorized(head, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
    ):
        with pytest.raises(Forbidden) as caught:
            verify(read_claim(changed), changed, SECRET, now=NOW)
        assert caught.value.facts == {"s3": "SignatureDoesNotMatch"}
    with pytest.raises(Forbidden):
        verify(read_claim(right), right, SECRET + "x", now=NOW)


@pytest.mark.parametrize("name", SUITE)
def test_the_published_suite(name):
    method, query, headers, signature = SUITE[name]
    head = RequestHead(method=method, path="/", query=query, headers=[*SUITE_HEADERS, *headers])
    names = sorted(key.lower() for key, _ in head.headers)
    hashed = hashlib.sha256(canonical_request(head, names, EMPTY_SHA256)).hexdigest()
    scope = "20150830/us-east-1/service/aws4_request"
    key = signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", scope)
    assert sign(key, ALGORITHM, "20150830T123600Z", scope, hashed) == signature


def test_a_presigned_address_is_good_until_it_expires():
    claim = read_claim(PRESIGNED)
    verify(claim, PRESIGNED, SECRET, now=NOW + timedelta(hours=23))
    with pytest.raises(Forbidden) as caught:
        verify(claim, PRESIGNED, SECRET, now=NOW + timedelta(hours=25))
    assert caught.value.facts == {"s3": "AccessDenied"}


def test_a_clock_more_than_fifteen_minutes_away_is_told_so():
    head = authorized(*S3[0])
    for off in (timedelta(minutes=16), -timedelta(minutes=16)):
        with pytest.raises(Forbidden) as caught:
            verify(read_claim(head), head, SECRET, now=NOW + off)
        assert caught.value.facts == {"s3": "RequestTimeTooSkewed"}
    verify(read_claim(head), head, SECRET, now=NOW + timedelta(minutes=14))


def test_an_address_signed_at_the_end_of_time_is_not_of_now():
    said = {"X-Amz-Credential": "K/99991231/r/s3/aws4_request", "X-Amz-Date": "99991231T235959Z"}
    named = {"X-Amz-Expires": "604800", "X-Amz-SignedHeaders": "host", "X-Amz-Signature": "0" * 64}
    query = urlencode({"X-Amz-Algorithm": ALGORITHM, **said, **named})
    head = RequestHead(method="PUT", path="/", query=query, headers=[HOST])
    with pytest.raises(Forbidden) as caught:
        verify(read_claim(head), head, SECRET, now=NOW)
    assert caught.value.facts == {"s3": "RequestTimeTooSkewed"}


def test_an_amz_header_that_is_not_signed_is_refused():
    head = authorized(*S3[0])
    added = RequestHead(
        method=head.method, path=head.path, query="", headers=[*head.headers, ("x-amz-meta-from", "+442079460123")]
    )
    with pytest.raises(Forbidden):
        verify(read_claim(added), added, SECRET, now=NOW)


def test_a_folder_that_a_proxy_put_in_front_does_not_break_the_signature():
    head = authorized(*S3[0])
    moved = RequestHead(method="GET", path="/s3" + head.path, query="", headers=head.headers)
    verify(read_claim(moved), moved, SECRET, now=NOW)


def test_a_port_that_was_sent_and_not_signed_does_not_break_the_signature_and_another_host_does():
    head = authorized(*S3[0])
    for added, good in ((":8443", True), (":", False), (".example:8443", False)):
        headers = [(name, value + added if name.lower() == "host" else value) for name, value in head.headers]
        sent = RequestHead(method="GET", path=head.path, query="", headers=headers)
        with nullcontext() if good else pytest.raises(Forbidden):
            verify(read_claim(sent), sent, SECRET, now=NOW)


def test_a_bucket_that_a_proxy_took_from_the_hosts_name_does_not_break_it_and_another_one_does():
    head = authorized(*S3[0])
    for folder in ("/s3/examplebucket", "/examplebucket"):
        moved = RequestHead(method="GET", path=folder + head.path, query="", headers=head.headers)
        verify(read_claim(moved), moved, SECRET, now=NOW)
    for folder in ("/s3/another", "/s3/examplebucket/examplebucket", "/s3/s3"):
        moved = RequestHead(method="GET", path=folder + head.path, query="", headers=head.headers)
        with pytest.raises(Forbidden):
            verify(read_claim(moved), moved, SECRET, now=NOW)


def test_rtpengine_signs_its_host_without_the_port_and_is_understood():
    scope = "20261125/eu-west-2/s3/aws4_request"
    names = "host;x-amz-content-sha256;x-amz-date"
    signature = "4d98c297aa288e38dcd0967d2b35568c9e702ee7c1f4375cfb4be0664a4ad20f"
    claim = f"{ALGORITHM} Credential=AKIAIOSFODNN7EXAMPLE/{scope},SignedHeaders={names},Signature={signature}"

    def sent(host):
        return RequestHead(
            method="PUT",
            path="/s3/northfield-college/1-4242%40192.0.2.7-1c07bd2c44bfb1c9-mix.wav",
            query="",
            headers=[
                ("Host", host),
                ("x-amz-content-sha256", "7cbf184fa00b1cdc042fa92f713744ad60374368936ff7bac1a892ee22ff00d1"),
                ("x-amz-date", "20261125T132631Z"),
                ("Authorization", claim),
            ],
        )

    now = datetime(2026, 11, 25, 13, 26, 31, tzinfo=UTC)
    for host in ("localhost:8443", "localhost"):
        verify(read_claim(sent(host)), sent(host), SECRET, now=now)
    for host in ("localhost.example:8443", "localhost:8443:8443", "localhost:https"):
        with pytest.raises(Forbidden):
            verify(read_claim(sent(host)), sent(host), SECRET, now=now)


def test_the_chunk_signatures_of_the_worked_example():
    head = authorized(
        streaming("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", ("Content-Length", "66824")),
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        CHUNKED,
    )
    body = (
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n"
        + b"a" * 65536
        + b"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"
        + b"a" * 1024
        + b"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
    )
    assert len(body) == 66824
    decoder = ChunkedDecoder(signer=signer(head), trailer=False)
    assert b"".join(decoder.feed(body)) == b"a" * 66560
    decoder.finish()
    assert decoder.vouched == 66560
    cut = ChunkedDecoder(signer=signer(head), trailer=False)
    cut.feed(body[:-200])
    assert cut.vouched == 65536


def test_the_trailer_signature_of_the_worked_example():
    head = authorized(
        streaming("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", ("x-amz-trailer", "x-amz-checksum-crc32c")),
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
        TRAILED,
    )
    body = (
        b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n"
        + b"a" * 65536
        + b"\r\n400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n"
        + b"a" * 1024
        + b"\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n"
        + b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
        + b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
    )
    decoder = ChunkedDecoder(signer=signer(head), trailer=True)
    assert b"".join(decoder.feed(body)) == b"a" * 66560
    decoder.finish()
    assert decoder.trailers == {"x-amz-checksum-crc32c": "sOO8/Q=="}
    # As minio-go writes it: pkg/signer/request-signature-streaming.go of github.com/minio/minio-go
    apart = body.replace(b"sOO8/Q==\r\n", b"sOO8/Q==\n\r\n")
    decoder = ChunkedDecoder(signer=signer(head), trailer=True)
    for byte in apart:
        decoder.feed(bytes([byte]))
    decoder.finish()
    assert decoder.trailers == {"x-amz-checksum-crc32c": "sOO8/Q=="}
    unsigned = body[: body.index(b"x-amz-trailer-signature")] + b"\r\n\r\n"
    for wrong in (body.replace(b"sOO8", b"sOO9"), body.replace(b"a\r\n400", b"b\r\n400"), unsigned):
        with pytest.raises(Forbidden):
            ChunkedDecoder(signer=signer(head), trailer=True).feed(wrong)


CHECK_VALUES = {
    "crc32": "cbf43926",
    "crc32c": "e3069283",
    "crc64nvme": "ae8b14860a799888",
    "md5": "25f9e794323b453885f5181f1b624d0b",
    "sha1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    "sha512": "d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274a"
    "d27fcd5811b313d681f7e55ec02d73d499c95455b6b5bb503acf574fba8ffe85",
    "xxhash64": "8cb841db40e6ae83",
    "xxhash3": "72dcb18b67a17dff",
    "xxhash128": "33119477ede5dcd5e9716427681d5860",
}


def test_the_checksums_have_their_check_values_however_the_bytes_were_cut():
    assert ALGORITHMS.keys() == CHECK_VALUES.keys()
    for name, check in CHECK_VALUES.items():
        running = ALGORITHMS[name]()
        for piece in (b"1", b"", b"2345", b"6789"):
            running.update(piece)
        assert [running.digest().hex(), running.digest().hex()] == [check, check], name


@pytest.mark.parametrize(
    "value",
    [
        "AWS4-HMAC-SHA256",
        f"AWS4-HMAC-SHA256 Credential=K/{SCOPE},SignedHeaders=host",
        f"AWS4-HMAC-SHA256 Credential=K/{SCOPE},SignedHeaders=host,Signature=zz",
        f"AWS4-HMAC-SHA256 Credential=K/{SCOPE},SignedHeaders=date,Signature={'0' * 64}",
        f"AWS4-HMAC-SHA256 Credential=K/20130524/us-east-1/sts/aws4_request,SignedHeaders=host,Signature={'0' * 64}",
        f"AWS4-HMAC-SHA256 Credential=K/20130525/us-east-1/s3/aws4_request,SignedHeaders=host,Signature={'0' * 64}",
        f"AWS4-HMAC-SHA256 Credential=K/{SCOPE},SignedHeaders=host,Signature={'0' * 64},Signature={'1' * 64}",
        f"AWS4-ECDSA-P256-SHA256 Credential=K/{SCOPE},SignedHeaders=host,Signature={'0' * 64}",
    ],
)
def test_a_malformed_signature_is_called_that(value):
    head = RequestHead(method="GET", path="/", query="", headers=[HOST, DATE, ("Authorization", value)])
    with pytest.raises(Invalid) as caught:
        read_claim(head)
    assert caught.value.facts == {"s3": "AuthorizationHeaderMalformed"}


def test_what_is_not_signed_is_not_taken_for_it():
    head = RequestHead(method="GET", path="/", query="", headers=[HOST])
    assert not is_signed(head)
    assert is_signed(PRESIGNED)
    with pytest.raises(Unauthenticated):
        read_claim(head)
