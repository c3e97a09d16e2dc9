"""Ed25519 keys and compact JWS."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from jwcrypto import jwk as other_jwk
from jwcrypto import jws as other_jws

from vault.crypto.signing import (
    SigningKey,
    VerifyKey,
    decode_base64url,
    encode_base64url,
    protected_header,
    sign_compact,
    verify_compact,
)
from vault.errors import FormatError, IntegrityError, Tampered

# RFC 8037 appendix A.
SEED = decode_base64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
KEY = SigningKey(SEED)
PUBLIC = KEY.public
JWK = {"kty": "OKP", "crv": "Ed25519", "x": X, "kid": PUBLIC.key_id}
OTHER = SigningKey(bytes(range(32)))
PAYLOAD = b'{"certificate":1}'


def jws_of(header, payload=PAYLOAD, key=KEY):
    """Return a correctly signed JWS with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    signed = f"{encode_base64url(text)}.{encode_base64url(payload)}"
    return f"{signed}.{encode_base64url(key.sign(signed.encode()))}"


def test_the_public_key_and_thumbprint_are_those_of_rfc_8037():
    assert PUBLIC.raw == decode_base64url(X)
    assert KEY.key_id == PUBLIC.key_id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_signature_is_that_of_rfc_8032():
    assert KEY.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe2"
        "4655141438e7a100b"
    )


def test_a_private_key_is_never_printed():
    assert str(KEY) == repr(KEY) == "SigningKey()"


def test_keys_survive_every_form():
    assert SigningKey.from_pem(KEY.to_pem()) == KEY
    assert VerifyKey.from_pem(PUBLIC.to_pem()) == PUBLIC
    assert VerifyKey.from_jwk(JWK) == PUBLIC
    assert SigningKey.generate(SEED) == KEY


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_keys_of_another_size_are_refused(size):
    with pytest.raises(FormatError):
        SigningKey(bytes(size))
    with pytest.raises(FormatError):
        VerifyKey(bytes(size))


def test_pem_of_anything_else_is_refused():
    curve = ec.generate_private_key(ec.SECP256R1())
    montgomery = x25519.X25519PrivateKey.generate()
    for key in (curve, montgomery):
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with pytest.raises(FormatError):
            SigningKey.from_pem(private)
        with pytest.raises(FormatError):
            VerifyKey.from_pem(public)
    for pem in (b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", PUBLIC.to_pem()):
        with pytest.raises(FormatError):
            SigningKey.from_pem(pem)
    with pytest.raises(FormatError):
        VerifyKey.from_pem(KEY.to_pem())


def test_an_encrypted_private_key_is_refused():
    locked = KEY._key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pw")
    )
    with pytest.raises(FormatError, match="unencrypted"):
        SigningKey.from_pem(locked)


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "EC"},
        {"crv": "X25519"},
        {"x": None},
        {"x": 1},
        {"x": X + "="},
        {"x": X[:-1]},
        {"x": X[:-1] + "p"},
        {"x": "!" + X[1:]},
        {"d": X},
    ],
    ids=str,
)
def test_a_jwk_that_is_no_public_ed25519_key_is_refused(change):
    with pytest.raises(FormatError):
        VerifyKey.from_jwk(JWK | change)


def test_base64url_has_one_form():
    for text in ("=", "A", "AA==", "AB", "A\n", "+/", "AAAA\n", "é"):
        with pytest.raises(FormatError):
            decode_base64url(text)
    for data in (b"", b"\0", b"\xff" * 5):
        assert decode_base64url(encode_base64url(data)) == data


def test_a_signed_payload_verifies():
    jws = sign_compact(PAYLOAD, KEY, {"typ": "callvault-deletion+json"})
    assert verify_compact(jws, PUBLIC) == PAYLOAD
    assert protected_header(jws) == {"alg": "Ed25519", "kid": KEY.key_id, "typ": "callvault-deletion+json"}
    assert sign_compact(PAYLOAD, KEY, {"typ": "callvault-deletion+json"}) == jws


@pytest.mark.parametrize("payload", [b"", b"\0\xff", b"x" * 100_000])
def test_any_payload_survives(payload):
    assert verify_compact(sign_compact(payload, KEY), PUBLIC) == payload


@pytest.mark.parametrize("member", ["alg", "kid", "crit", "b64"])
def test_callers_cannot_set_what_decides_verification(member):
    with pytest.raises(ValueError, match="not for callers"):
        sign_compact(PAYLOAD, KEY, {member: "x"})


def test_an_independent_implementation_verifies_ours_and_the_reverse():
    theirs = other_jwk.JWK(**JWK)
    assert theirs.thumbprint() == PUBLIC.key_id
    token = other_jws.JWS()
    token.allowed_algs = ["Ed25519"]
    token.deserialize(sign_compact(PAYLOAD, KEY), theirs)
    assert token.payload == PAYLOAD
    made = other_jws.JWS(PAYLOAD)
    made.allowed_algs = ["Ed25519"]
    private = other_jwk.JWK(kty="OKP", crv="Ed25519", x=X, d=encode_base64url(SEED))
    made.add_signature(private, None, json.dumps({"alg": "Ed25519", "kid": KEY.key_id}, separators=(",", ":")))
    assert verify_compact(made.serialize(compact=True), PUBLIC) == PAYLOAD


def test_every_single_character_change_is_refused():
    jws = sign_compact(b"{}", KEY)
    for at, character in enumerate(jws):
        for other in {"A", "B", ".", "=", "_", "z"} - {character}:
            with pytest.raises(IntegrityError):
                verify_compact(jws[:at] + other + jws[at + 1 :], PUBLIC)


def test_every_single_bit_flip_of_the_signature_is_refused():
    signed, _, signature = sign_compact(b"{}", KEY).rpartition(".")
    raw = decode_base64url(signature)
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Tampered):
            verify_compact(f"{signed}.{encode_base64url(changed)}", PUBLIC)


def test_another_key_is_refused():
    with pytest.raises(Tampered, match="names another key"):
        verify_compact(sign_compact(PAYLOAD, OTHER), PUBLIC)
    with pytest.raises(Tampered, match="does not belong"):
        verify_compact(jws_of({"alg": "Ed25519", "kid": KEY.key_id}, key=OTHER), PUBLIC)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "EdDSA", "kid": KEY.key_id},
        {"alg": "none", "kid": KEY.key_id},
        {"alg": "ed25519", "kid": KEY.key_id},
        {"alg": ["Ed25519"], "kid": KEY.key_id},
        {"kid": KEY.key_id},
        {"alg": "Ed25519"},
        {"alg": "Ed25519", "kid": 1},
        {"alg": "Ed25519", "kid": KEY.key_id, "crit": "exp"},
        {"alg": "Ed25519", "kid": KEY.key_id, "crit": []},
        {"alg": "Ed25519", "kid": KEY.key_id, "b64": False},
        {"alg": "Ed25519", "kid": KEY.key_id, "jwk": {}},
        ["Ed25519"],
        None,
        b"",
        b"{",
        b'{"alg":"Ed25519","alg":"Ed25519","kid":"x"}',
        b'{"kid":"x","alg":"Ed25519"}',
        b'{"alg": "Ed25519","kid":"x"}',
        b'{"alg":"Ed25519","kid":"\\ud800"}',
        b'{"alg":"Ed25519","kid":"\\u0041"}',
        b'{"alg":"Ed25519","kid":"\xff"}',
        '{"alg":"Ed25519","kid":"x"}'.encode("utf-16"),
        b"[" * 100_000,
    ],
    ids=lambda header: repr(header)[:50],
)
def test_any_other_header_is_refused_even_when_its_signature_is_sound(header):
    with pytest.raises(FormatError):
        verify_compact(jws_of(header), PUBLIC)


@pytest.mark.parametrize(
    "change", ["", ".", "a.b", "{0}.{1}", "{0}.{1}.{2}.", "{0}.{1}.{2}.x", "{0}=.{1}.{2}", " {0}.{1}.{2}"]
)
def test_any_other_shape_is_refused(change):
    with pytest.raises(FormatError):
        verify_compact(change.format(*sign_compact(PAYLOAD, KEY).split(".")), PUBLIC)
