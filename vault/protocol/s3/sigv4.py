"""Verification of AWS Signature Version 4: in the Authorization header, in the query, and of each chunk.

After "Authenticating Requests (AWS Signature Version 4)" in the Amazon S3 API reference. Errors have their S3 code in
their facts, under `s3`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from vault.errors import Forbidden, Invalid, Unauthenticated

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
EMPTY_SHA256: Final = hashlib.sha256().hexdigest()
MAX_SKEW: Final = timedelta(minutes=15)

_MAX_EXPIRES: Final = 7 * 24 * 3600
_SERVICE: Final = "s3"
_INSTANT: Final = "%Y%m%dT%H%M%SZ"
_SCOPE: Final = re.compile(r"([\w.@+=-]{1,128})/(\d{8})/([A-Za-z0-9-]{1,64})/([a-z0-9-]{1,32})/aws4_request", re.ASCII)
_PIECE: Final = re.compile(r"\s*(Credential|SignedHeaders|Signature)=([^,\s]+)\s*", re.ASCII)
_PORT: Final = re.compile(r":\d{1,5}$", re.ASCII)
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PRESIGNED: Final = ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Date", "X-Amz-Expires")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request as received: `path` and `query` are percent-encoded, header names have any case."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]] = field(repr=False)

    def header(self, name: str) -> str | None:
        """Return the first value of a header, whose `name` is in lower case; None if it is absent."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def parameters(self) -> Sequence[tuple[str, str]]:
        """Return the query's names and values, decoded, in order."""
        return [(_text(name), _text(value)) for name, _, value in _split(self.query)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The access key and the signature that a request states. `expires` is set for a presigned URL."""

    access_key: str
    scope: str
    signed_at: datetime
    signed_headers: tuple[str, ...]
    signature: str = field(repr=False)
    payload: str
    expires: timedelta | None = None


def _text(encoded: str) -> str:
    return _bytes(encoded).decode("utf-8", "surrogateescape")


def _bytes(encoded: str) -> bytes:
    """Undo percent-encoding; other characters are encoded as the server decoded them."""
    return unquote_to_bytes(encoded.encode("utf-8", "surrogateescape"))


def _split(query: str) -> Sequence[tuple[str, str, str]]:
    return [each.partition("=") for each in query.split("&") if each]


def is_signed(head: RequestHead) -> bool:
    """Tell whether a request has such a signature, valid or not."""
    authorization = head.header("authorization")
    if authorization is not None:
        return authorization.startswith(ALGORITHM)
    return any(name == "X-Amz-Algorithm" for name, _ in head.parameters())


def read_claim(head: RequestHead) -> Claim:
    """Return the claim in a request; Invalid if it is malformed, Unauthenticated without a signature."""
    authorization = head.header("authorization")
    if authorization is not None:
        return _from_header(head, authorization)
    parameters = head.parameters()
    if any(name == "X-Amz-Algorithm" for name, _ in parameters):
        return _from_query(parameters)
    raise Unauthenticated(
        "the request is not signed",
        hint="the access key is the recorder token's id, the secret key its secret part",
        s3="AccessDenied",
    )


def _from_header(head: RequestHead, authorization: str) -> Claim:
    algorithm, _, rest = authorization.partition(" ")
    pieces = [_PIECE.fullmatch(piece) for piece in rest.split(",")]
    found = {piece[1]: piece[2] for piece in pieces if piece}
    if algorithm != ALGORITHM or len(pieces) != len(found) or len(found) != 3:  # noqa: PLR2004  # the header's parts
        raise _malformed("it is not AWS4-HMAC-SHA256 with Credential, SignedHeaders and Signature")
    access_key, scope = _scope(found["Credential"])
    stamp = head.header("x-amz-date")
    if stamp is None:
        raise _malformed("the request has no x-amz-date")
    return Claim(
        access_key=access_key,
        scope=scope,
        signed_at=_instant(stamp, scope),
        signed_headers=_names(found["SignedHeaders"]),
        signature=_signature(found["Signature"]),
        payload=head.header("x-amz-content-sha256") or UNSIGNED_PAYLOAD,
    )


def _from_query(parameters: Sequence[tuple[str, str]]) -> Claim:
    found = dict(parameters)
    if len(found) != len(parameters):
        raise _malformed("a query parameter is repeated")
    if found["X-Amz-Algorithm"] != ALGORITHM or any(name not in found for name in _PRESIGNED):
        raise _malformed(f"a presigned address has X-Amz-Algorithm={ALGORITHM}, {', '.join(_PRESIGNED)}")
    expires = found["X-Amz-Expires"]
    if not expires.isascii() or not expires.isdigit() or not 0 < int(expires[:8]) <= _MAX_EXPIRES or len(expires) > 8:  # noqa: PLR2004
        raise _malformed("X-Amz-Expires is 1 to 604800 seconds")
    access_key, scope = _scope(found["X-Amz-Credential"])
    return Claim(
        access_key=access_key,
        scope=scope,
        signed_at=_instant(found["X-Amz-Date"], scope),
        signed_headers=_names(found["X-Amz-SignedHeaders"]),
        signature=_signature(found["X-Amz-Signature"]),
        payload=found.get("X-Amz-Content-Sha256", UNSIGNED_PAYLOAD),
        expires=timedelta(seconds=int(expires)),
    )


def _malformed(why: str) -> Invalid:
    return Invalid(f"the signature is malformed: {why}", s3="AuthorizationHeaderMalformed")


def _scope(credential: str) -> tuple[str, str]:
    match = _SCOPE.fullmatch(credential)
    if match is None or match[4] != _SERVICE:
        raise _malformed("the credential is not KEY/DATE/REGION/s3/aws4_request")
    return match[1], credential.removeprefix(match[1] + "/")


def _instant(stamp: str, scope: str) -> datetime:
    try:
        instant = datetime.strptime(stamp, _INSTANT).replace(tzinfo=UTC)
    except ValueError as error:
        raise _malformed("its date is not of the form 20260131T093000Z") from error
    if instant.strftime(_INSTANT) != stamp or not scope.startswith(stamp[:8] + "/"):
        raise _malformed("its date is not the day of its scope")
    return instant


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(";"))
    if "host" not in names or len(set(names)) != len(names) or text.lower() != text:
        raise _malformed("the signed headers are lower case, each once, and host is among them")
    return tuple(sorted(names))


def _signature(text: str) -> str:
    if not _SIGNATURE.fullmatch(text):
        raise _malformed("it is not 64 hex digits")
    return text


# -- canonical request and signature --------------------------------------------------------------------------------


def canonical_request(head: RequestHead, signed_headers: Sequence[str], payload: str) -> bytes:
    """Return the canonical request, whose hash is signed."""
    uri = quote(_bytes(head.path), safe="/-_.~")
    query = "&".join(
        f"{name}={value}"
        for name, value in sorted(
            (quote(_bytes(name), safe="-_.~"), quote(_bytes(value), safe="-_.~"))
            for name, _, value in _split(head.query)
        )
        if name != "X-Amz-Signature"
    )
    lines = [head.method, uri, query]
    for name in signed_headers:
        values = [" ".join(value.split()) for key, value in head.headers if key.lower() == name]
        lines.append(f"{name}:{','.join(values)}")
    lines += ["", ";".join(signed_headers), payload]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def signing_key(secret: str, scope: str) -> bytes:
    """Return the key for one day, region and service."""
    key = ("AWS4" + secret).encode()
    for piece in scope.split("/"):
        key = hmac.digest(key, piece.encode(), hashlib.sha256)
    return key


def sign(key: bytes, *texts: str) -> str:
    """Return the signature, in hex, of the texts joined by line feeds."""
    return hmac.digest(key, "\n".join(texts).encode(), hashlib.sha256).hex()


def verify(claim: Claim, head: RequestHead, secret: str, *, now: datetime) -> bytes:
    """Return the signing key if the signature is valid at `now`; raise Forbidden otherwise."""
    _in_time(claim, now)
    unsigned = {key.lower() for key, _ in head.headers if key.lower().startswith("x-amz-")} - set(claim.signed_headers)
    if unsigned - {"x-amz-content-sha256"}:
        raise Forbidden("the request has x-amz headers that are not signed", s3="AccessDenied")
    key = signing_key(secret, claim.scope)
    stamp = claim.signed_at.strftime(_INSTANT)
    for received, path in product(_hosts(head), _paths(head)):
        signed = canonical_request(replace(received, path=path), claim.signed_headers, claim.payload)
        hashed = hashlib.sha256(signed).hexdigest()
        if hmac.compare_digest(sign(key, ALGORITHM, stamp, claim.scope, hashed), claim.signature):
            return key
    raise Forbidden(
        "the signature does not match",
        hint="check the secret key (the token's secret part); a proxy must pass path, query and Host as they came",
        s3="SignatureDoesNotMatch",
    )


def _hosts(head: RequestHead) -> Iterator[RequestHead]:
    """Yield the request as received, then with Host without its port: rtpengine sends the port and does not sign it."""
    yield head
    host = head.header("host") or ""
    if (name := _PORT.sub("", host)) != host:
        yield replace(head, headers=[(key, name if key.lower() == "host" else value) for key, value in head.headers])


def _paths(head: RequestHead) -> Iterator[str]:
    """Yield the path as received, then without the `/s3` or the bucket that a proxy may have put in front."""
    yield head.path
    inner = head.path.removeprefix("/s3") if head.path.startswith("/s3/") else head.path
    yield inner
    bucket, _, key = inner[1:].partition("/")
    if (head.header("host") or "").lower().startswith(f"{bucket}."):
        yield "/" + key


def _in_time(claim: Claim, now: datetime) -> None:
    if claim.expires is not None and now - claim.signed_at > claim.expires:
        raise Forbidden("the presigned address has expired", s3="AccessDenied")
    late = claim.expires is None and now - claim.signed_at > MAX_SKEW
    if late or claim.signed_at - now > MAX_SKEW:
        raise Forbidden(
            "the request was signed more than 15 minutes away from the server's time",
            hint="set the recorder's clock",
            s3="RequestTimeTooSkewed",
        )


class ChunkSigner:
    """Computes the signatures of the chunks of one body, each of which covers the one before."""

    def __init__(self, claim: Claim, key: bytes) -> None:
        self._key = key
        self._stamp = claim.signed_at.strftime(_INSTANT)
        self._scope = claim.scope
        self._previous = claim.signature

    def chunk(self, sha256: str) -> str:
        """Return the signature that the next chunk must have."""
        lines = (ALGORITHM + "-PAYLOAD", self._stamp, self._scope, self._previous, EMPTY_SHA256, sha256)
        self._previous = sign(self._key, *lines)
        return self._previous

    def trailer(self, lines: bytes) -> str:
        """Return the signature that the trailer must have; `lines` are its canonical lines."""
        hashed = hashlib.sha256(lines).hexdigest()
        return sign(self._key, ALGORITHM + "-TRAILER", self._stamp, self._scope, self._previous, hashed)
