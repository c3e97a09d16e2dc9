"""Authorities that issue X.509 certificates to servers and clients.

Python 3.13 and newer take none without the extensions that RFC 5280 wants beside names and dates.
"""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

FILES = {"tls_cert": "cert.pem", "tls_key": "key.pem"}
"""Settings of a server that has what `write_certificate` wrote."""


class Authority:
    """An authority whose files lie in a directory, its own certificate in `file`."""

    def __init__(self, base: Path, name: str = "Test authority", *, host: str | None = None) -> None:
        self._base, self._name = base, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(self._key.public_key(), name, host, timedelta(days=1))
        self.file, self.secret = self._write(name, self.certificate, self._key)

    def issue(self, name: str, *, host: str = "127.0.0.1", ends: timedelta = timedelta(days=1)) -> tuple[Path, Path]:
        """Return the files of a certificate for a host, by its address or name, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._write(f"{self._name} {name}", self._signed(key.public_key(), name, host, ends), key)

    def context(self, host: str, ends: timedelta = timedelta(days=1)) -> ssl.SSLContext:
        """Return what a server of that name serves with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(host, host=host, ends=ends))
        return context

    def _signed(self, key: ec.EllipticCurvePublicKey, name: str, host: str | None, ends: timedelta) -> x509.Certificate:
        now, issuer = datetime.now(UTC), self._key.public_key()
        authority = key == issuer
        builder = (
            x509.CertificateBuilder(issuer_name=_named(self._name), subject_name=_named(name), public_key=key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        )
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([_subject(host)]), critical=False)
        if authority:
            builder = builder.add_extension(_USES, critical=True)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
        files = self._base / f"{name}.pem", self._base / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files


def write_certificate(base: Path) -> ssl.SSLContext:
    """Write a certificate for localhost that issued itself, and its key, as FILES names them; return what trusts it."""
    authority = Authority(base, "localhost", host="localhost")
    authority.file.rename(base / FILES["tls_cert"])
    authority.secret.rename(base / FILES["tls_key"])
    return ssl.create_default_context(cafile=base / FILES["tls_cert"])


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _subject(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


_USES = x509.KeyUsage(
    digital_signature=True,  # a certificate that issued itself may be a server's
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
