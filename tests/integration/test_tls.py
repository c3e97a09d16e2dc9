"""TLS: spoken from 1.2 on, with the certificate the configuration names; anything unusable is refused at start."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.faults.crashing import memory_directory
from tests.integration.app import SETTINGS, running
from vault.config import parse_config
from vault.errors import ConfigError
from vault.server.app import tls_context

FILES = {"tls_cert": "cert.pem", "tls_key": "key.pem"}


def write_certificate(base):
    """Write a self-signed certificate for 127.0.0.1 and its key; relative names in the configuration find them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (base / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (base / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return ssl.create_default_context(cafile=str(base / "cert.pem"))


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
