"""What RFC 5280 wants of certificates beside names and dates; Python 3.13 and newer take no other."""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec


def ruled(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePublicKey, *, issuer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    """Add what a certificate for `key` needs, which is an authority's if it issues itself."""
    authority = key.public_numbers() == issuer.public_numbers()
    if authority:
        uses = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only", "digital_signature"),
            False,
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **uses), critical=True)
    return (
        builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
    )
