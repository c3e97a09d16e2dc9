"""What a TLS certificate says of itself, for messages about one that is not trusted; nothing is verified here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from vault.errors import FormatError


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """Names and life of a certificate; `names` are the hosts and addresses that it is for."""

    subject: str
    issuer: str
    names: Sequence[str]
    begins: datetime
    ends: datetime


def read_presented(der: bytes) -> Presented:
    """Return what a certificate in DER says; FormatError if it is none."""
    try:
        found = x509.load_der_x509_certificate(der)
        return Presented(
            subject=found.subject.rfc4514_string(),
            issuer=found.issuer.rfc4514_string(),
            names=_names(found),
            begins=found.not_valid_before_utc,
            ends=found.not_valid_after_utc,
        )
    except ValueError as error:
        raise FormatError("the certificate cannot be read") from error


def _names(certificate: x509.Certificate) -> Sequence[str]:
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *said.get_values_for_type(x509.DNSName),
        *(str(address) for address in said.get_values_for_type(x509.IPAddress)),
    )
