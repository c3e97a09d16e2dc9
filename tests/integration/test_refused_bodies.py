"""Bodies that are refused before they are sent or read, by every way in that is plain HTTP."""

import gzip

import pytest

from tests.helpers.app import PCMU, TENANTS, app, sound
from tests.helpers.uploads import BYTES, Resumable, Tus, Wire, metadata
from vault.model import Role

__all__ = ("app",)

CALL = f"/v1/ingest/{TENANTS[0]}/call"
FORM = {
    "Content-Type": "multipart/form-data; boundary=b",
    "X-Recording-Call-ID": "call",
    "X-Recording-File-Name": "call.wav",
}
CREATION = {
    **Tus.version,
    "Content-Type": BYTES,
    "Upload-Defer-Length": "1",
    "Upload-Metadata": metadata(filetype=PCMU),
}


async def answered(app, method, path, body=b"", **headers):
    """Send one request by hand and return its first answer."""
    line = await Wire.to(app)
    try:
        line.send(method, path, body, **headers)
        return await line.answer()
    finally:
        line.close()


@pytest.mark.parametrize("coding", ["gzip", "br", "x-unheard-of"])
@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("PUT", CALL, {"Content-Type": PCMU}),
        ("POST", f"/v1/ingest/{TENANTS[0]}/rtpengine", FORM),
        ("POST", Tus.place, CREATION),
        ("POST", Resumable.place, {"Content-Type": PCMU, "Upload-Complete": "?1"}),
    ],
    ids=["stream", "rtpengine", "tus", "resumable"],
)
async def test_a_body_in_a_coding_is_refused_because_what_is_kept_is_what_was_sent(app, coding, method, path, headers):
    body = gzip.compress(sound(5_000))
    answer = await app.ask(method, path, Role.RECORDER, data=body, headers={**headers, "Content-Encoding": coding})
    assert (answer.status, answer.problem) == (415, "unsupported_media")
    assert "s3" not in answer.json
    assert (await app.ask("GET", "/v1/recordings")).json["recordings"] == []


async def test_a_transfer_coding_beside_chunked_is_refused(app):
    chunk = b"3\r\nabc\r\n0\r\n\r\n"
    status, _, _ = await answered(app, "PUT", CALL, chunk, Content_Type=PCMU, Transfer_Encoding="gzip, chunked")
    assert status == 415


@pytest.mark.parametrize("path", [CALL, f"/v1/ingest/{TENANTS[0]}/rtpengine", Tus.place, "/s3/northfield/call"])
async def test_a_refusal_before_the_body_has_the_id_of_its_request(app, path):
    asking = {"Expect": "100-continue", "Content-Length": "9", "Authorization": None, **CREATION}
    status, headers, _ = await answered(app, "PUT" if path.startswith("/s3") else "POST", path, **asking)
    assert status in (401, 403)
    assert headers.get("Request-Id") or headers["x-amz-request-id"]


async def test_the_audit_entry_of_a_refusal_before_the_body_has_the_id_that_was_answered(app):
    other = CALL.replace(TENANTS[0], TENANTS[1])
    status, headers, _ = await answered(app, "PUT", other, Expect="100-continue", Content_Length="9")
    assert status == 404
    assert headers["Request-Id"] in str(await app.audit("access.denied"))


async def test_a_client_of_http_1_0_is_not_told_to_continue(app):
    sent = {"Expect": "100-continue", "Content-Type": PCMU, "Content-Length": "3"}
    status, _, _ = await answered(app, "PUT", CALL, b"abc", version="1.0", **sent)
    assert status == 201


@pytest.mark.parametrize(
    ("method", "headers", "status"), [("DELETE", {}, 405), ("PUT", {"Expect": "sunshine", "Content-Length": "9"}, 417)]
)
async def test_what_http_itself_refuses_is_a_problem_document_with_an_id(app, method, headers, status):
    found, sent, body = await answered(app, method, CALL, **headers)
    assert (found, sent["Content-Type"]) == (status, "application/problem+json")
    assert f'"request_id": "{sent["Request-Id"]}"'.encode() in body
    assert status != 405 or (sent["Allow"], b"it takes HEAD,POST,PUT" in body) == ("HEAD,POST,PUT", True)
