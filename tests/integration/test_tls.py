"""TLS: spoken from 1.2 on, with the certificate the configuration names; anything unusable is refused at start."""

import asyncio
import ssl
from pathlib import Path

import pytest
from botocore.exceptions import SSLError
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.helpers.app import SETTINGS, Role, running
from tests.helpers.authorities import FILES, write_certificate
from tests.helpers.crashing import memory_directory
from tests.helpers.s3clients import BUCKET, HEAD, Recorder, rclone_command, run
from tests.helpers.uploads import Wire
from vault.config import parse_config
from vault.errors import ConfigError
from vault.server.app import tls_context


async def test_the_api_is_served_over_tls_with_the_configured_certificate():
    with memory_directory() as base:
        trust = write_certificate(base)
        async with running(base, server={**SETTINGS["server"], **FILES, "host": "localhost"}) as app:
            assert app.url.startswith("https://")
            async with app.client.get("/healthz", ssl=trust) as answer:
                assert answer.status == 200
            trust.maximum_version = ssl.TLSVersion.TLSv1_2
            async with app.client.get("/healthz", ssl=trust, headers={"Connection": "close"}) as answer:
                assert answer.status == 200


@pytest.mark.soak
async def test_clients_are_told_of_an_authority_as_the_page_says(monkeypatch):
    page = Path("docs/operations.md").read_text().partition("#### An authority of your own")[2].partition("\n#")[0]
    for name in ("CURL_CA_BUNDLE", "--cacert", "RCLONE_CA_CERT", "--ca-cert", "AWS_CA_BUNDLE", "verify="):
        assert f"`{name}" in page
    with memory_directory() as base:
        write_certificate(base)
        (base / "call.wav").write_bytes(HEAD)
        file = str(base / "cert.pem")
        async with running(base, server={**SETTINGS["server"], **FILES, "host": "localhost"}) as app:
            recorder = Recorder.of(app.url, app.tokens["northfield", Role.RECORDER])
            curl = ["curl", "--silent", "--fail", f"{app.url}/healthz"]
            copy, env = rclone_command(recorder, "copyto", str(base / "call.wav"), f"vault:{BUCKET}/call.wav")
            for code, command, more in (
                (60, curl, {}),
                (0, [*curl, "--cacert", file], {}),
                (0, curl, {"CURL_CA_BUNDLE": file}),
                (0, copy, {"RCLONE_CA_CERT": file}),
            ):
                ran = await run(*command, env={**env, **more})
                assert ran.code == code, ran.output

            def put(**options):
                recorder.boto(**options).put_object(Bucket=BUCKET, Key="other.wav", Body=HEAD)

            with pytest.raises(SSLError):
                await asyncio.to_thread(put)
            await asyncio.to_thread(put, verify=file)
            monkeypatch.setenv("AWS_CA_BUNDLE", file)
            await asyncio.to_thread(put)


def test_nothing_older_than_tls_1_2_is_spoken(tmp_path):
    write_certificate(tmp_path)
    context = tls_context(parse_config({"server": FILES}, base=tmp_path))
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("missing", ["cert.pem", "key.pem"])
def test_an_unusable_certificate_refuses_the_start_and_names_the_setting(tmp_path, missing):
    write_certificate(tmp_path)
    (tmp_path / missing).write_text("not a certificate")
    with pytest.raises(ConfigError, match=r"server\.tls_cert"):
        tls_context(parse_config({"server": FILES}, base=tmp_path))


def test_a_key_that_asks_for_a_password_refuses_the_start_instead_of_asking(tmp_path):
    write_certificate(tmp_path)
    key = load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "key.pem").write_bytes(locked)
    with pytest.raises(ConfigError, match="encrypted"):
        tls_context(parse_config({"server": FILES}, base=tmp_path))


CBC = "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA"


async def test_tls_1_2_is_spoken_with_aead_suites_only():
    with memory_directory() as base:
        trust = write_certificate(base)
        async with running(base, server={**SETTINGS["server"], **FILES, "host": "localhost"}) as app:
            port = int(app.url.rpartition(":")[2])
            trust.maximum_version = ssl.TLSVersion.TLSv1_2
            for suite in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"):
                trust.set_ciphers(suite)
                _, writer = await asyncio.open_connection("localhost", port, ssl=trust)
                assert writer.get_extra_info("cipher")[0] == suite
                writer.transport.abort()
            trust.set_ciphers(CBC)
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await asyncio.open_connection("localhost", port, ssl=trust)


async def test_browsers_are_told_to_come_back_over_tls_only_where_tls_is_spoken():
    with memory_directory() as base:
        trust = write_certificate(base)
        async with running(base, server={**SETTINGS["server"], **FILES, "host": "localhost"}) as app:
            for path in ("/healthz", "/v1/recordings", "/nowhere"):
                async with app.client.get(path, ssl=trust) as answer:
                    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    with memory_directory() as base:
        async with running(base) as app:
            assert "Strict-Transport-Security" not in (await app.ask("GET", "/healthz", None)).headers


async def test_no_answer_names_a_version_of_the_server():
    with memory_directory() as base:
        async with running(base) as app:
            for path in ("/healthz", "/v1/recordings", "/nowhere", "/metrics"):
                assert (await app.ask("GET", path, None)).headers["Server"] == "callvault"
            line = await Wire.to(app)
            line.write(b"no HTTP at all\r\n\r\n")
            status, headers = await line.head()
            assert (status, headers["Server"]) == (400, "callvault")
            line.close()


async def test_a_handshake_that_stalls_is_closed_after_the_idle_time():
    with memory_directory() as base:
        write_certificate(base)
        settings = {**SETTINGS["server"], **FILES, "host": "localhost", "idle_timeout": "1s"}
        async with running(base, server=settings) as app:
            for began in (b"", b"\x16\x03\x01"):
                reader, writer = await asyncio.open_connection("localhost", int(app.url.rpartition(":")[2]))
                writer.write(began)
                async with asyncio.timeout(3):
                    assert await reader.read() == b""
                writer.close()
