"""SIGHUP at a real server: certificates and the level of the log are read again, and nothing ends."""

import asyncio
import http.client
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.authorities import write_certificate
from tests.helpers.commands import COMMAND, CONFIG, environment, port_of, until
from tests.helpers.soak import SOAK
from vault.config import load_config, parse_config
from vault.server.connections.tls import _changed
from vault.wiring import init_vault

TLS = CONFIG.replace("port = 0", 'host = "localhost"\nport = 0\ntls_cert = "cert.pem"\ntls_key = "key.pem"')


def handshake(port: int) -> ssl.SSLSocket:
    # Whose certificate it is does not matter here: it is compared with the one that was installed.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))


def shown(port: int) -> str:
    with handshake(port) as line:
        found = line.getpeercert(binary_form=True)
        assert found is not None
        return ssl.DER_cert_to_PEM_cert(found)


def healthy(line: ssl.SSLSocket) -> bool:
    line.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = http.client.HTTPResponse(line)
    answer.begin()
    return answer.status == 200 and bool(answer.read())


@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="two workers are started, and six hang-ups heard: run in make soak")
def test_sighup_renews_the_certificate_for_new_connections_and_ends_none(tmp_path: Path) -> None:
    vault, workers = tmp_path, 2
    (vault / "config.toml").write_text(TLS)
    asyncio.run(init_vault(load_config(vault / "config.toml")))
    write_certificate(vault)
    first = (vault / "cert.pem").read_text()
    serve = [*COMMAND, "serve", "--port-file", "port", "--workers", str(workers)]
    with (vault / "log").open("wb") as log:
        process = subprocess.Popen(serve, cwd=vault, env=environment(), stderr=log)

    def logged(message: str, **fields: object) -> int:
        lines = [json.loads(line) for line in (vault / "log").read_text().splitlines() if line.startswith("{")]
        return sum(each["message"] == message and fields.items() <= each.items() for each in lines)

    def hang_up(come_about: Callable[[], bool]) -> None:
        process.send_signal(signal.SIGHUP)
        until(come_about, seconds=20)
        assert process.poll() is None

    try:
        port = port_of(vault)
        old = handshake(port)
        assert shown(port) == first
        assert healthy(old)
        write_certificate(vault)
        second = (vault / "cert.pem").read_text()
        assert shown(port) == first  # nothing is read before it is asked for
        hang_up(lambda: logged("certificate read again", listener="server") == workers)
        assert {shown(port) for _ in range(8)} == {second}
        assert healthy(old)

        (vault / "cert.pem").write_text("half a certif")
        stays = "not read again; what was in force stays"
        hang_up(lambda: logged(stays, what="server") == workers)
        assert {shown(port) for _ in range(8)} == {second}

        (vault / "cert.pem").write_text("no certificate")
        (vault / "config.toml").write_text(TLS.replace('level = "INFO"', 'level = "high"'))
        hang_up(lambda: logged(stays, what="the settings") == workers)
        write_certificate(vault)
        (vault / "config.toml").write_text(TLS.replace('level = "INFO"', 'level = "ERROR"').replace("4MiB", "8MiB"))
        third = (vault / "cert.pem").read_text()
        hang_up(lambda: {shown(port) for _ in range(8)} == {third})
        # The level is in force before a certificate is: of this time nothing below an error is said.
        assert not logged("settings changed that need a restart")
        assert logged("certificate read again") == workers
        assert healthy(old)
        old.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert "Traceback" not in (vault / "log").read_text()
    finally:
        process.kill()
        process.wait()


def test_settings_that_need_a_restart_are_named_without_their_values() -> None:
    def config(**server: object) -> object:
        return parse_config({"server": server, "catalog": {"url": "postgresql://u:secret@h/d"}}, base=Path("/nowhere"))

    files = {"tls_cert": "a", "tls_key": "b"}
    assert list(_changed(config(), config(**files))) == []
    assert list(_changed(config(port=1), config(port=2, **files))) == ["server.port"]
