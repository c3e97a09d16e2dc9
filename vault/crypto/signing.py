"""Ed25519 keys (RFC 8032), their JWK form (RFC 8037, RFC 7638) and compact JWS with `alg: "Ed25519"` (RFC 9864)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from vault.errors import FormatError, Tampered

ALGORITHM: Final = "Ed25519"
SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32

_MAX_JWS_CHARS = 4 << 20
_JWS_PARTS = 3
_RESERVED = frozenset({"alg", "kid", "crit", "b64"})
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


def encode_base64url(data: bytes) -> str:
    """Return unpadded base64url (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(text: str) -> bytes:
    """Decode unpadded base64url; FormatError for padding, other characters or non-zero bits after the end."""
    if not _BASE64URL.fullmatch(text):
        raise FormatError("not unpadded base64url")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise FormatError("not unpadded base64url") from error
    if encode_base64url(data) != text:
        raise FormatError("base64url with stray bits at its end")
    return data


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """An Ed25519 public key: 32 bytes, as RFC 8032 encodes them."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != PUBLIC_BYTES:
            raise FormatError(f"an Ed25519 public key is {PUBLIC_BYTES} bytes")

    @classmethod
    def from_pem(cls, pem: bytes) -> VerifyKey:
        """Read a SubjectPublicKeyInfo PEM; FormatError for anything but an Ed25519 public key."""
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FormatError("not a public key in PEM form") from error
        if not isinstance(key, Ed25519PublicKey):
            raise FormatError("a public key, but not an Ed25519 one")
        return cls(key.public_bytes_raw())

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> VerifyKey:
        """Read an OKP JWK; FormatError for another type or curve, and for a private key."""
        if jwk.get("kty") != "OKP" or jwk.get("crv") != ALGORITHM or not isinstance(jwk.get("x"), str):
            raise FormatError('not an Ed25519 public key: a JWK needs kty "OKP", crv "Ed25519" and x')
        if "d" in jwk:
            raise FormatError("this JWK is a private key; it does not belong where public keys are read")
        return cls(decode_base64url(jwk["x"]))

    def to_pem(self) -> bytes:
        """Return the key as SubjectPublicKeyInfo PEM."""
        return self._key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> str:
        """The RFC 7638 thumbprint: base64url of SHA-256 over the required members in lexical order."""
        members = {"crv": ALGORITHM, "kty": "OKP", "x": encode_base64url(self.raw)}
        return encode_base64url(hashlib.sha256(_compact(members)).digest())

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise Tampered unless `signature` over `message` was made with this key."""
        try:
            self._key().verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise Tampered("the signature does not belong to this content and key") from error

    def _key(self) -> Ed25519PublicKey:
        try:
            return Ed25519PublicKey.from_public_bytes(self.raw)
        except ValueError as error:
            raise Tampered("the public key is not a point of the curve") from error


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key: its 32-byte seed, which is not printed."""

    seed: bytes = field(repr=False)
    key_id: str = field(init=False, repr=False, compare=False)
    """The public key's thumbprint."""

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise FormatError(f"an Ed25519 private key is {SEED_BYTES} bytes")
        object.__setattr__(self, "key_id", self.public.key_id)

    @classmethod
    def generate(cls, entropy: bytes) -> SigningKey:
        """Return the key whose seed is `entropy`, 32 cryptographically random bytes."""
        return cls(entropy)

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """Read an unencrypted PKCS#8 PEM; FormatError for anything but an Ed25519 private key."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The cause is dropped: a parser's message may quote what it read.
            raise FormatError("not an unencrypted private key in PEM form") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise FormatError("a private key, but not an Ed25519 one")
        return cls(key.private_bytes_raw())

    def to_pem(self) -> bytes:
        """Return the key as unencrypted PKCS#8 PEM. The caller must store it where nobody else can read it."""
        return self._key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public(self) -> VerifyKey:
        """The public key."""
        return VerifyKey(self._key().public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature; the same message gives the same signature."""
        return self._key().sign(message)

    def signer(self) -> Callable[[bytes], bytes]:
        """Return `sign` for many messages: deriving the key from its seed takes longer than a signature."""
        return self._key().sign

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


def sign_compact(
    payload: bytes,
    key: SigningKey,
    extra: Mapping[str, str] | None = None,
    *,
    sign: Callable[[bytes], bytes] | None = None,
) -> str:
    """Return a compact JWS over `payload`; `extra` adds members (such as `typ`) to the protected header.

    The header's members are sorted and without spaces, so the same payload and key give the same JWS. ValueError if
    `extra` has alg, kid, crit or b64. `sign` may be the key's `signer()`, which is faster for many signatures.
    """
    members = dict(extra or {})
    if _RESERVED & members.keys():
        raise ValueError("alg, kid, crit and b64 are not for callers to set")
    protected = _compact(members | {"alg": ALGORITHM, "kid": key.key_id})
    signed = f"{encode_base64url(protected)}.{encode_base64url(payload)}"
    return f"{signed}.{encode_base64url((sign or key.sign)(signed.encode()))}"


def protected_header(jws: str) -> dict[str, Any]:
    """Return the protected header of a compact JWS without checking its signature, to choose a key by `kid`.

    FormatError unless the JWS has the form that `verify_compact` accepts.
    """
    return _split(jws)[0]


def verify_compact(jws: str, key: VerifyKey) -> bytes:
    """Return the payload of a compact JWS that `key` signed with `alg: "Ed25519"`.

    FormatError for another algorithm (also `EdDSA` and `none`), `crit`, `b64`, an unsorted or repeated header member,
    or base64url that is padded or not canonical. Tampered for another key or a wrong signature.
    """
    header, payload, signature, signed = _split(jws)
    if header["kid"] != key.key_id:
        raise Tampered("the signature names another key")
    key.verify(signature, signed)
    return payload


def _split(jws: str) -> tuple[dict[str, Any], bytes, bytes, bytes]:
    parts = jws.split(".")
    if len(parts) != _JWS_PARTS or len(jws) > _MAX_JWS_CHARS:
        raise FormatError("a compact JWS is three base64url parts joined by dots")
    protected, payload, signature = (decode_base64url(part) for part in parts)
    try:
        header = json.loads(protected)
    except (ValueError, RecursionError) as error:
        raise FormatError("the protected header is not JSON") from error
    if not isinstance(header, dict) or header.get("alg") != ALGORITHM:
        raise FormatError(f'the only algorithm accepted is "{ALGORITHM}"')
    if "crit" in header or "b64" in header:
        raise FormatError("extensions that change how a JWS is read are not accepted")
    if not all(isinstance(value, str) for value in header.values()) or "kid" not in header:
        raise FormatError("the protected header holds text only, and names its key as kid")
    # Compared as text, because a lone surrogate in an escape cannot be encoded as UTF-8.
    if _compact_text(header) != protected.decode(errors="replace"):
        raise FormatError("the protected header is not in canonical form")
    return header, payload, signature, f"{parts[0]}.{parts[1]}".encode()


def _compact(members: Mapping[str, str]) -> bytes:
    return _compact_text(members).encode()


def _compact_text(members: Mapping[str, str]) -> str:
    return json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
