"""Reads the names and the validity of TLS certificates, for messages about them; it verifies nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from vault.errors import FormatError


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """Names and validity of a certificate; `names` are the hosts and addresses that it is for."""

    subject: str
    issuer: str
    names: Sequence[str]
    begins: datetime
    ends: datetime


def read_presented(der: bytes) -> Presented:
    """Return names and validity of a certificate in DER; FormatError for other bytes."""
    try:
        return _presented(x509.load_der_x509_certificate(der))
    except ValueError as error:
        raise FormatError("the certificate cannot be read") from error


def first_to_expire(pem: bytes) -> Presented:
    """Return names and validity of the certificate in a PEM file that expires first; FormatError without one."""
    try:
        found = [_presented(each) for each in x509.load_pem_x509_certificates(pem)]
    except ValueError as error:
        raise FormatError("it is not a certificate in PEM") from error
    return min(found, key=lambda each: each.ends)


def _presented(certificate: x509.Certificate) -> Presented:
    return Presented(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=_names(certificate),
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
    )


def _names(certificate: x509.Certificate) -> Sequence[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    )
