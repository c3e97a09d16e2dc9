"""Turns each error into an HTTP status and an RFC 9457 problem document, an S3 error, or a WebSocket close."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import WSCloseCode, web

from vault import errors
from vault.protocol.s3.requests import ERROR_STATUS, error_document

STATUS: Final[Mapping[type[errors.VaultError], int]] = {
    errors.Invalid: 422,
    errors.Malformed: 400,
    errors.UnsupportedVersion: 412,
    errors.ChecksumMismatch: 460,
    errors.UnsupportedMedia: 415,
    errors.TooLarge: 413,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.RangeNotSatisfiable: 416,
    errors.OffsetMismatch: 409,
    errors.Conflict: 409,
    errors.Locked: 423,
    errors.UploadGone: 410,
    errors.UnderHold: 409,
    errors.TooLate: 409,
    errors.UploadStalled: 408,
    errors.Shredded: 410,
    errors.GuardTripped: 409,
    errors.Refused: 400,
    errors.IntegrityError: 500,
    errors.DiskFull: 507,
    errors.Crowded: 429,
    errors.Unavailable: 503,
    errors.Destroyed: 500,
    errors.ConfigError: 500,
    errors.VaultError: 500,
}

_TEXT: Final = {"type": "string"}
PROBLEM: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "An RFC 9457 problem document. Further members name facts of the case, such as offset or "
    "certificate_id.",
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": ["urn:callvault:problem:under_hold"]},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What broke and what did not."},
        "hint": {"type": "string", "description": "What to do next."},
        "request_id": _TEXT,
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": {"type": ["string", "integer"]},
}
"""The schema of a problem document."""

REASONS: Final[Mapping[int, str]] = {460: "Checksum Mismatch"}
"""Reason phrases of statuses that RFC 9110 does not define; 460 is from tus 1.0."""

_REGISTERED: Final = "https://iana.org/assignments/http-problem-types#"
_TYPES: Final[Mapping[type[errors.VaultError], str]] = {
    errors.MismatchingOffset: f"{_REGISTERED}mismatching-upload-offset",
    errors.UploadComplete: f"{_REGISTERED}completed-upload",
    errors.InconsistentLength: f"{_REGISTERED}inconsistent-upload-length",
}
"""Problem types that other specifications define (draft-ietf-httpbis-resumable-upload, Problem Types)."""


def status_of(error: errors.VaultError) -> int:
    """Return the status of the most specific class listed."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


_CLOSE_CODES: Final[Mapping[type[errors.VaultError], int]] = {
    errors.TooLarge: WSCloseCode.MESSAGE_TOO_BIG,
    errors.Conflict: WSCloseCode.TRY_AGAIN_LATER,
    errors.OffsetMismatch: WSCloseCode.POLICY_VIOLATION,
    errors.UploadStalled: WSCloseCode.GOING_AWAY,
    errors.Refused: WSCloseCode.POLICY_VIOLATION,
    errors.Unavailable: WSCloseCode.TRY_AGAIN_LATER,
    errors.VaultError: WSCloseCode.INTERNAL_ERROR,
}
_CLOSE_REASON_BYTES: Final = 123


def close_code(error: errors.VaultError, *, request_id: str | None = None) -> tuple[int, bytes]:
    """Return the code of a WebSocket close (RFC 6455 section 7.4), and the reason, cut to 123 bytes.

    The request's id follows the reason if there is room. The answer to the upgrade already had it as a header.
    """
    code = next(_CLOSE_CODES[kind] for kind in type(error).__mro__ if kind in _CLOSE_CODES)
    reason = error.message.encode()[:_CLOSE_REASON_BYTES].decode(errors="ignore").encode()
    told = f" [{request_id}]".encode() if request_id else b""
    return code, reason + told if len(reason) + len(told) <= _CLOSE_REASON_BYTES else reason


def problem(
    error: errors.VaultError, *, request_id: str | None, close: bool = False, basic: bool = False
) -> web.Response:
    """Render an error; `close` also ends the connection, because the rest of an upload will not be read.

    `basic` offers Basic beside Bearer; only recorders may use it.
    """
    status = status_of(error)
    body: dict[str, object] = {
        "type": _TYPES.get(type(error), f"urn:callvault:problem:{error.code}"),
        "title": error.code.replace("_", " "),
        "status": status,
        "detail": error.message,
    }
    if error.hint:
        body["hint"] = error.hint
    if request_id:
        body["request_id"] = request_id
    body.update((name, fact) for name, fact in error.facts.items() if name != "s3")  # S3's own code is for S3
    response = web.Response(
        status=status,
        reason=REASONS.get(status),
        body=json.dumps(body).encode(),
        content_type="application/problem+json",
    )
    if isinstance(error, errors.Unavailable | errors.UnderWay):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.Unauthenticated):
        # One header line for each challenge, because ffmpeg reads only the first challenge of a line.
        for scheme in ("Basic", "Bearer") if basic else ("Bearer",):
            response.headers.add("WWW-Authenticate", f'{scheme} realm="callvault"')
    if isinstance(error, errors.OffsetMismatch):
        response.headers["Upload-Offset"] = str(error.facts["offset"])
    if isinstance(error, errors.RangeNotSatisfiable):
        response.headers["Content-Range"] = f"bytes */{error.facts['total']}"
    if close:
        response.force_close()
    return response


def plain_problem(error: web.HTTPException, *, request_id: str, close: bool) -> web.Response:
    """Render a refusal of HTTP itself, such as a method that the address does not offer; its status says it all."""
    body = {"type": "about:blank", "title": error.reason, "status": error.status, "request_id": request_id}
    if "Allow" in error.headers:
        body |= {"detail": "this address does not take this method", "hint": f"it takes {error.headers['Allow']}"}
    response = web.Response(
        status=error.status, body=json.dumps(body).encode(), content_type="application/problem+json"
    )
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    if close:
        response.force_close()
    return response


_S3_CODES: Final[Mapping[type[errors.VaultError], str]] = {
    errors.UploadStalled: "RequestTimeout",
    errors.TooLarge: "EntityTooLarge",
    errors.Unauthenticated: "AccessDenied",
    errors.Forbidden: "AccessDenied",
    errors.NotFound: "NoSuchKey",
    errors.Conflict: "OperationAborted",
    errors.Refused: "InvalidArgument",
    errors.Unavailable: "SlowDown",
    errors.VaultError: "InternalError",
}


def s3_problem(error: errors.VaultError, *, request_id: str, head: bool, close: bool) -> web.Response:
    """Render an error as S3 does: with the code that the error names, else that of its class; HEAD gets no document."""
    named = error.facts.get("s3")
    kind = next(_S3_CODES[each] for each in type(error).__mro__ if each in _S3_CODES)
    code = named if isinstance(named, str) else kind
    words = f"{error.message} ({error.hint})" if error.hint else error.message
    body = None if head else error_document(code, words, request_id=request_id)
    response = web.Response(status=ERROR_STATUS[code], body=body, content_type="application/xml")
    response.headers["x-amz-request-id"] = request_id
    if isinstance(error, errors.Unavailable):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    if close:
        response.force_close()
    return response
