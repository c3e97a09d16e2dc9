"""Junk addresses and bad credentials, over real sockets: refused before any audio is read."""

import asyncio
import hashlib
import random

import pytest

from tests.helpers.server import TENANT
from tests.helpers.wire import answer, head, path, request, rest, wire
from vault.ids import parse_call_key

pytestmark = pytest.mark.usefixtures("nothing_else_suffers")


@pytest.mark.parametrize(
    "target",
    [
        "/v1/ingest/{tenant}/",
        "/v1/ingest/{tenant}/a/b",
        "/v1/ingest/Northfield/k",
        "/v1/ingest/..%2f{tenant}/k",
        "/v1/ingest/{tenant}%2f..%2fother/k",
        "/v1/ingest/other/k",
        "/v1/ingest/'%3b--/k",
        "/v1/ingest/" + "t" * 64 + "/k",
        "//v1/ingest/{tenant}/k",
        "http://elsewhere/v1/ingest/other/k",
    ],
)
async def test_junk_addresses_record_nothing(site, server, client, target):
    before = await listed(client, site)
    async with wire(server) as (reader, writer):
        lines = ("Content-Type: audio/PCMU;rate=8000;channels=1", "Content-Length: 500", "Connection: close")
        writer.write(request(site, target.format(tenant=TENANT), *lines) + b"a" * 500)
        said = await rest(reader)
    assert said[9:12] in (b"400", b"403", b"404", b"422"), said[:200]
    assert b"njected" not in said.partition(b"\r\n\r\n")[0]
    assert await listed(client, site) == before


@pytest.mark.parametrize(
    ("name", "call_key"),
    [
        ("..%2f..%2fetc%2fpasswd", "..=2F..=2Fetc=2Fpasswd"),
        ("a%00b", "a=00b"),
        ("%0d%0aX-Injected:%20yes", "=0D=0AX-Injected:=20yes"),
        ("%ff%fe", None),
        ("caf%c3%a9", "caf=C3=A9"),
        ("%", "=25"),
        ("k" * 181, None),
    ],
)
async def test_odd_names_of_calls_are_escaped_and_never_come_back(site, server, client, name, call_key):
    known = await listed(client, site)
    async with wire(server) as (reader, writer):
        lines = ("Content-Type: audio/PCMU;rate=8000;channels=1", "Content-Length: 500", "Connection: close")
        writer.write(request(site, f"/v1/ingest/{TENANT}/{name}", *lines) + b"a" * 500)
        said = await rest(reader)
    assert said[9:12] == b"201", said[:200]
    assert b"njected" not in said
    [recording] = [each for each in await listed(client, site) if each not in known]
    async with client.get(f"/v1/recordings/{recording}", headers=site.auth("agent")) as found:
        shown = (await found.json())["call"]["call_key"]
    if call_key is not None:
        assert shown == call_key
    assert parse_call_key(shown) == shown


async def listed(client, site):
    async with client.get("/v1/recordings?limit=1000", headers=site.auth("agent")) as found:
        return [row["id"] for row in (await found.json())["recordings"]]


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "Bearer",
        "Bearer nonsense",
        "Bearer cv_" + "0" * 32 + "_secret",
        "Bearer cv_\xff\xfe_secret",
        "Basic !!!",
        "Basic \xff\xfe",
        "Basic " + "QQ==",
        "Digest username=x",
    ],
)
async def test_a_bad_credential_gets_401_before_100_and_no_body_is_read(site, server, client, key, credential):
    lines = [f"PUT {path(key)} HTTP/1.1", "Host: vault", "Expect: 100-continue", "Content-Length: 50000"]
    lines += ["Content-Type: audio/PCMU;rate=8000;channels=1"] + (
        [f"Authorization: {credential}"] if credential else []
    )
    async with wire(server) as (reader, writer):
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        status, headers, body = await answer(reader)
        assert status == 401, body
        assert headers["connection"] == "close"
        writer.write(b"a" * 50_000)
        assert await rest(reader) == b""
    assert await head(client, site, key) is None


async def test_another_tenants_or_roles_token_is_refused_before_100(site, server, client, key):
    elsewhere = f"/v1/ingest/southfield/{key}"
    for role, target, refusal in (
        ("agent", path(key), 403),
        ("operator", path(key), 403),
        ("recorder", elsewhere, 404),
    ):
        async with wire(server) as (reader, writer):
            writer.write(request(site, target, "Expect: 100-continue", "Content-Length: 500", token=site.tokens[role]))
            status, _, _ = await answer(reader)
        assert status == refusal, role
    assert await head(client, site, key) is None


async def test_a_good_token_gets_100_then_201(site, server, client, key):
    data = random.randbytes(5_000)
    async with wire(server) as (reader, writer):
        content = "Content-Type: audio/PCMU;rate=8000;channels=1"
        writer.write(request(site, path(key), content, "Expect: 100-continue", "Content-Length: 5000"))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(data)
        status, _, body = await answer(reader)
    assert (status, body["sha256"]) == (201, hashlib.sha256(data).hexdigest())
