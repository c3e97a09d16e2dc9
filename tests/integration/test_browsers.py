"""What a page of another site can make a browser do: nothing; and what a request must be, whoever sends it."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest

from tests.clients import CLIENTS, node_modules
from tests.helpers.app import PCMU, PURPOSE, TENANTS, App, app, sound
from tests.helpers.soak import SOAK
from vault.model import Role
from vault.server.origins import EXPOSED
from vault.server.routes import OPERATIONS

__all__ = ["app"]

OURS, THEIRS = TENANTS
EVIL = "https://evil.example"
PORTAL = "https://portal.northfield.example"
FROM_ELSEWHERE: tuple[Mapping[str, str], ...] = (
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": EVIL},
)


def basic(token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"x:{token}".encode()).decode()}


async def raw(app: App, method: str, path: str, headers: Mapping[str, str], data: bytes | None = None):
    async with app.client.request(
        method, app.url + path if path.startswith("/") else path, data=data, headers=headers
    ) as response:
        return response.status, response.headers.copy(), await response.read()


async def test_basic_is_for_recorders_and_offered_to_nobody_else(app: App) -> None:
    path = f"/v1/ingest/{OURS}/basic-1"
    status, _, _ = await raw(app, "PUT", path, {**basic(app.token(Role.RECORDER)), "Content-Type": PCMU}, b"\xff" * 160)
    assert status == 201
    for role in Role:
        if role is not Role.RECORDER:
            status, headers, _ = await raw(app, "GET", "/v1/recordings", basic(app.token(role)))
            assert (status, headers.getall("WWW-Authenticate")) == (401, ['Bearer realm="callvault"']), role
    status, headers, _ = await raw(app, "PUT", path, {})
    assert status == 401
    assert any(each.startswith("Basic") for each in headers.getall("WWW-Authenticate"))  # recorders ask for it


async def test_a_page_of_another_site_cannot_approve_an_erasure(app: App) -> None:
    recording = await app.upload("erased-1", b"\xff" * 1600)
    asked = await app.ask(
        "POST",
        "/v1/erasures",
        Role.DPO,
        body={"basis": "art17", "case_reference": "C-1", "recordings": [recording]},
    )
    assert asked.status == 202, asked.body
    path = f"/v1/erasures/{asked.json['id']}/approve"
    for told in FROM_ELSEWHERE:
        bearer = {"Authorization": f"Bearer {app.token(Role.COMPLIANCE)}", "Content-Type": "application/json"}
        refused = await app.ask("POST", path, Role.COMPLIANCE, body={"shown": asked.json["shown"]}, headers=told)
        assert (refused.status, refused.problem) == (403, "forbidden"), told
        assert (await raw(app, "POST", path, {**bearer, **told}))[0] == 403
        assert (await raw(app, "POST", path, {**basic(app.token(Role.COMPLIANCE)), **told}))[0] == 403
    played = await app.ask("GET", f"/v1/recordings/{recording}/audio", Role.DPO, headers=PURPOSE)
    assert played.status in (200, 403)  # never 410
    assert (await app.ask("GET", asked.headers["Location"], Role.DPO)).json["state"] == "requested"


async def test_what_is_no_browser_or_the_vaults_own_page_is_not_asked(app: App) -> None:
    for told in (
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": app.url},
        {"Origin": app.url},
    ):
        body = {"name": "pbx", "role": "recorder", "tenant": OURS}
        issued = await app.ask("POST", "/v1/tokens", Role.OPERATOR, body=body, headers=told)
        assert issued.status == 201, told


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
)
async def test_outside_ingest_a_body_is_json_or_there_is_none(app: App, kind: str | None) -> None:
    sent = {"Authorization": f"Bearer {app.token(Role.OPERATOR)}", **({"Content-Type": kind} if kind else {})}
    status, _, content = await raw(app, "POST", "/v1/sweeps", sent, b'{"dry_run": true}')
    assert status == 415
    assert b"application/json" in content


async def test_a_page_records_with_a_bearer_token_from_an_origin_that_its_tenant_lists(app: App) -> None:
    path = f"/v1/ingest/{OURS}/page-1"
    page = {"Origin": PORTAL, "Sec-Fetch-Site": "cross-site"}
    bearer = {"Authorization": f"Bearer {app.token(Role.RECORDER)}", "Content-Type": PCMU}
    preflight = {**page, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}
    assert (await raw(app, "PUT", path, {**bearer, **page}, b"\xff" * 160))[0] == 403
    assert (await raw(app, "OPTIONS", path, preflight))[0] == 403

    changed = await app.ask("PUT", f"/v1/tenants/{OURS}", Role.OPERATOR, body={"origins": [PORTAL]})
    assert changed.json["origins"] == [PORTAL]
    status, headers, _ = await raw(app, "OPTIONS", path, preflight)
    assert (status, headers["Access-Control-Allow-Origin"]) == (204, PORTAL)
    assert "PUT" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Allow-Headers"] == "authorization"
    status, headers, _ = await raw(app, "PUT", path, {**bearer, **page}, b"\xff" * 160)
    assert (status, headers["Access-Control-Allow-Origin"]) == (201, PORTAL)
    assert "Upload-Offset" in headers["Access-Control-Expose-Headers"]
    assert headers.getall("Vary") == ["Origin"]

    remembered = {**basic(app.token(Role.RECORDER)), "Content-Type": PCMU}
    assert (await raw(app, "PUT", f"{path}b", {**remembered, **page}, b"\xff"))[0] == 403
    for other in ({"Origin": EVIL}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": f"{PORTAL}.evil.example"}):
        assert (await raw(app, "PUT", f"{path}c", {**bearer, **other}, b"\xff"))[0] == 403, other
    emptied = await app.ask("PUT", f"/v1/tenants/{OURS}", Role.OPERATOR, body={"origins": []})
    assert emptied.json["origins"] == []
    assert (await raw(app, "PUT", f"{path}d", {**bearer, **page}, b"\xff"))[0] == 403


async def test_nobody_learns_which_tenant_lists_an_origin(app: App) -> None:
    listed = await app.ask("PUT", f"/v1/tenants/{OURS}", Role.OPERATOR, body={"origins": [PORTAL]})
    assert listed.status == 200
    page = {"Origin": PORTAL, "Sec-Fetch-Site": "cross-site", "Content-Type": PCMU}
    preflight = {"Access-Control-Request-Method": "POST"}
    guesses = {"": {}, "bearer": {"Authorization": "Bearer cv_x"}, "basic": basic("x")}

    def told(answer: tuple[int, Mapping[str, str], bytes]) -> object:
        status, headers, content = answer
        request_id = headers["Request-Id"].encode()
        kept = {name: value for name, value in headers.items() if name not in {"Date", "Request-Id"}}
        return status, kept, content.replace(request_id, b"")

    for origin in (PORTAL, EVIL):
        for what in ("tus", "call-1"):
            paths = [f"/v1/ingest/{tenant}/{what}" for tenant in (OURS, THEIRS, "nobody")]
            for sent in ({**page, **preflight}, *({**page, **each} for each in guesses.values())):
                method = "OPTIONS" if "Access-Control-Request-Method" in sent else "POST"
                answers = [told(await raw(app, method, path, {**sent, "Origin": origin})) for path in paths]
                assert answers[0] == answers[1] == answers[2], (origin, sent)

    # A token of the other tenant uploads from no page, and this one's reaches the other tenant as without a browser.
    theirs = {**page, "Authorization": f"Bearer {app.token(Role.RECORDER, THEIRS)}"}
    status, headers, _ = await raw(app, "POST", f"/v1/ingest/{THEIRS}/call-1", theirs, b"\xff")
    assert (status, "Access-Control-Allow-Origin" in headers) == (403, False)
    ours = {**page, "Authorization": f"Bearer {app.token(Role.RECORDER)}"}
    for tenant in (THEIRS, "nobody"):
        assert (await raw(app, "POST", f"/v1/ingest/{tenant}/call-1", ours, b"\xff"))[0] == 404


def test_a_page_reads_every_header_that_ingest_answers_with() -> None:
    described = {
        name
        for operation in OPERATIONS
        if operation.path.startswith("/v1/ingest/")
        for answer in operation.answers.values()
        for name in answer.headers
    }
    assert "Upload-Offset" in described
    assert described <= {*EXPOSED}


async def test_an_answer_over_tus_has_no_header_that_a_page_cannot_read(app: App) -> None:
    place = f"/v1/ingest/{OURS}/tus"
    sent = {"Authorization": f"Bearer {app.token(Role.RECORDER)}", "Tus-Resumable": "1.0.0"}
    made = {"Upload-Defer-Length": "1", "Upload-Metadata": "filetype YXVkaW8vYmFzaWM="}
    _, first, _ = await raw(app, "POST", place, {**sent, **made})
    asked = [("OPTIONS", place, {}), ("HEAD", first["Location"], {}), ("POST", place, {"Tus-Resumable": "9"})]
    found = {*first}
    for method, path, more in asked:
        found |= {*(await raw(app, method, path, {**sent, **more}))[1]}
    assert {"Tus-Version", "Upload-Defer-Length", "Tus-Checksum-Algorithm"} <= found
    assert found - {*EXPOSED} <= {"Server", "Date", "Content-Type", "Content-Length", "Cache-Control"}


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="a browser takes seconds to start")
async def test_uppy_in_chromium_uploads_and_a_page_opened_later_goes_on(app: App, tmp_path: Path) -> None:
    node_modules()
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: Debian's chromium has it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listed = await app.ask(
        "PUT", f"/v1/tenants/{OURS}", Role.OPERATOR, body={"origins": [f"http://localhost:{port}", PORTAL]}
    )
    assert listed.status == 200
    data, file = sound(500_000), tmp_path / "call.ulaw"
    file.write_bytes(data)

    def said(tenant: str) -> dict[str, object]:
        return {
            "endpoint": f"{app.url}/v1/ingest/{tenant}/tus",
            "token": app.token(Role.RECORDER, tenant),
            "meta": {"filetype": PCMU, "call_key": "uppy-1", "from": "+441632960001"},
            "chunkSize": 100_000,
        }

    asked = {"executable": chromium, "port": port, "file": str(file), "ours": said(OURS), "theirs": said(THEIRS)}
    asked["place"] = f"{app.url}/v1/ingest/{OURS}/page-2"
    process = await asyncio.create_subprocess_exec(
        *("node", str(CLIENTS / "browser.mjs"), json.dumps(asked)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        told, errors = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()[-3000:]
    seen = json.loads(told)

    assert (seen["elsewhere"]["urls"], len(seen["elsewhere"]["failed"])) == ([], 1)
    assert await app.vault.search.call(THEIRS, "uppy-1") is None
    assert seen["offset"] == "300000"
    assert seen["requests"] == [["HEAD", None], ["PATCH", "300000"], ["PATCH", "400000"]]
    [url] = seen["resumed"]["urls"]
    recording = url.rpartition("/")[2]
    assert (await app.play(recording)).body == data
    shown = await app.ask("GET", f"/v1/recordings/{recording}", Role.COMPLIANCE)
    assert shown.json["call"]["caller"] == "+441632960001"

    made = json.loads(seen["put"]["text"])["recording_id"]
    assert (seen["put"]["status"], seen["head"]["headers"]["recording-id"]) == (201, made)
    assert seen["stranger"]["status"] == 401  # a page reads that its token is not good
    assert seen["other"] is None


async def test_a_page_of_another_site_opens_no_websocket_and_signs_no_bucket_request(app: App) -> None:
    sent = {**basic(app.token(Role.RECORDER)), "Origin": EVIL}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await app.client.ws_connect(f"{app.url}/v1/ingest/{OURS}/ws", headers=sent)
    assert refused.value.status == 403
    assert (await raw(app, "GET", f"/s3/{OURS}/x", {"Origin": EVIL}))[0] == 403


async def test_a_websocket_library_may_name_the_server_it_connects_to(app: App) -> None:
    sent = {**basic(app.token(Role.RECORDER)), "Origin": "http://127.0.0.1"}
    async with app.client.ws_connect(
        f"{app.url}/v1/ingest/{OURS}/ws", headers=sent, protocols=("audio.drachtio.org",)
    ) as socket:
        assert socket.protocol == "audio.drachtio.org"


async def test_a_name_that_occurs_twice_is_refused_and_an_unknown_one_is_not_repeated(app: App) -> None:
    sent = {"Authorization": f"Bearer {app.token(Role.OPERATOR)}", "Content-Type": "application/json"}
    status, _, content = await raw(app, "POST", "/v1/sweeps", sent, b'{"dry_run": true, "dry_run": false}')
    assert (status, b"occurs twice" in content) == (422, True)
    for body in (b'{"dry_run": NaN}', b"\xff{}", b"[" * 100_000):
        assert (await raw(app, "POST", "/v1/sweeps", sent, body))[0] == 422
    status, _, content = await raw(app, "POST", "/v1/sweeps", sent, b'{"+441632960123": 1}')
    assert (status, b"441632" in content, b"dry_run" in content) == (422, False, True)
    for query in ("+441632960123=1", "%2B441632960123=1", "limit=1&limit=2"):
        status, _, content = await raw(app, "GET", f"/v1/recordings?{query}", sent)
        assert (status, b"441632" in content) == (422, False), query


async def test_a_webhook_inside_the_network_is_refused_unless_it_is_allowed(app: App) -> None:
    for url in (
        "https://10.0.0.8/x",
        "https://169.254.169.254/",
        "https://[fe80::1]/",
        "https://[::ffff:192.168.0.1]/",
    ):
        answer = await app.ask("PUT", f"/v1/tenants/{OURS}", Role.OPERATOR, body={"safeguarding_webhook": url})
        assert answer.status == 422, url
        assert "private or link-local" in answer.json["detail"]
        added = {"id": "other", "name": "O", "controller": "O", "contact": "o@example.org", "safeguarding_webhook": url}
        assert (await app.ask("POST", "/v1/tenants", Role.OPERATOR, body=added)).status == 422
    for url in ("http://127.0.0.1:9/", "https://192.0.0.9/", "https://alerts.northfield.invalid/"):
        answer = await app.ask("PUT", f"/v1/tenants/{OURS}", Role.OPERATOR, body={"safeguarding_webhook": url})
        assert answer.status == 200, answer.body
