"""Requests with a signature of AWS's fourth version."""

import hashlib
from datetime import UTC, datetime

from vault.protocol.s3.sigv4 import (
    ALGORITHM,
    EMPTY_SHA256,
    RequestHead,
)

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


NOW = datetime(2013, 5, 24, tzinfo=UTC)


STAMP = "20130524T000000Z"


SCOPE = "20130524/us-east-1/s3/aws4_request"


HOST = ("Host", "examplebucket.s3.amazonaws.com")


DATE = ("x-amz-date", STAMP)


HELLO = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()


S3 = [
    (
        RequestHead(
            method="GET",
            path="/test.txt",
            query="",
            headers=[HOST, ("Range", "bytes=0-9"), ("x-amz-content-sha256", EMPTY_SHA256), DATE],
        ),
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    (
        RequestHead(
            method="PUT",
            path="/test%24file.text",
            query="",
            headers=[
                HOST,
                ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
                DATE,
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ("x-amz-content-sha256", HELLO),
            ],
        ),
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    (
        RequestHead(
            method="GET", path="/", query="lifecycle", headers=[HOST, ("x-amz-content-sha256", EMPTY_SHA256), DATE]
        ),
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    (
        RequestHead(
            method="GET",
            path="/",
            query="max-keys=2&prefix=J",
            headers=[HOST, ("x-amz-content-sha256", EMPTY_SHA256), DATE],
        ),
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
]


PRESIGNED = RequestHead(
    method="GET",
    path="/test.txt",
    query="X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    headers=[HOST],
)


def authorized(head, signature, names=None):
    names = names or ";".join(sorted(name.lower() for name, _ in head.headers))
    value = f"{ALGORITHM} Credential=AKIAIOSFODNN7EXAMPLE/{SCOPE},SignedHeaders={names},Signature={signature}"
    return RequestHead(
        method=head.method, path=head.path, query=head.query, headers=[*head.headers, ("Authorization", value)]
    )


def streaming(payload, *more):
    return RequestHead(
        method="PUT",
        path="/examplebucket/chunkObject.txt",
        query="",
        headers=[
            ("Host", "s3.amazonaws.com"),
            DATE,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("x-amz-content-sha256", payload),
            ("Content-Encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            *more,
        ],
    )
