import base64
import hashlib
import hmac
from dataclasses import replace

import pytest

from tests.helpers.audiohook_client import COMPONENTS, CREATED, KEY, SECRET, SIGNATURE, SIGNATURE_INPUT
from tests.helpers.httpsignatures import signed
from vault.errors import Unauthenticated, Unavailable
from vault.protocol.live import audiohook
from vault.protocol.live.audiohook import Nonces, parse_signature, signature_base, verify

REQUIRED = frozenset(COMPONENTS)
# RFC 9421 appendix B.1.5 and B.2.5.
RFC_KEY = base64.b64decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
RFC_INPUT = 'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
RFC_SIGNATURE = "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:"
RFC_VALUES = {
    "date": "Tue, 20 Apr 2021 02:07:55 GMT",
    "@authority": "example.com",
    "content-type": "application/json",
}


def check(*, given=SIGNATURE_INPUT, proof=SIGNATURE, key=SECRET, values=COMPONENTS, required=REQUIRED, now=CREATED):
    signature = parse_signature(given, proof)
    verify(signature, key=key, values=values, required=required, now=now)
    return signature


def test_the_signature_of_the_reference_client_is_verified():
    signature = check()
    assert signature.keyid == KEY
    assert set(signature.components) == REQUIRED


def test_the_signature_base_is_that_of_rfc_9421_appendix_b_2_5():
    # The RFC's example has no nonce, which AudioHook requires; the base is what its bytes are known of.
    with pytest.raises(Unauthenticated):
        parse_signature(RFC_INPUT, RFC_SIGNATURE)
    signature = replace(
        check(),
        components=("date", "@authority", "content-type"),
        parameters=RFC_INPUT.partition("=")[2],
    )
    digest = hmac.new(RFC_KEY, signature_base(signature, RFC_VALUES), hashlib.sha256).digest()
    assert f"sig-b25=:{base64.b64encode(digest).decode()}:" == RFC_SIGNATURE


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_signature_speaks_for_every_component_as_it_was_signed(name):
    with pytest.raises(Unauthenticated):
        check(values={**COMPONENTS, name: COMPONENTS[name] + "x"})
    missing = dict(COMPONENTS)
    del missing[name]
    with pytest.raises(Unauthenticated):
        check(values=missing)


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_signature_that_leaves_a_component_out_is_refused(name):
    given = SIGNATURE_INPUT.replace(f'"{name}"', "").replace("  ", " ").replace("( ", "(").replace(" )", ")")
    assert name not in parse_signature(given, signed(given)).components
    with pytest.raises(Unauthenticated):
        check(given=given, proof=signed(given))
    check(given=given, proof=signed(given), required=REQUIRED - {name})


def test_another_key_makes_another_signature():
    with pytest.raises(Unauthenticated):
        check(key=SECRET[:-1] + b"6")


@pytest.mark.parametrize(("now", "good"), [(-6, False), (-5, True), (0, True), (35, True), (36, False)])
def test_a_signature_is_good_for_half_a_minute_and_what_clocks_differ_by(now, good):
    if good:
        check(now=CREATED + now)
    else:
        with pytest.raises(Unauthenticated):
            check(now=CREATED + now)


def test_a_signature_ends_when_it_says_so():
    given = SIGNATURE_INPUT.replace("expires=1795575745", f"expires={CREATED + 2}")
    check(given=given, proof=signed(given), now=CREATED + 7)
    with pytest.raises(Unauthenticated):
        check(given=given, proof=signed(given), now=CREATED + 8)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('nonce="3agOM5G1bG7k342QZCg09mqM";', ""),
        ('nonce="3agOM5G1bG7k342QZCg09mqM"', 'nonce="short"'),
        ("created=1795575715;", ""),
        ('alg="hmac-sha256"', 'alg="none"'),
        (f'keyid="{KEY}";', ""),
        (";expires=1795575745", ";expires=1795575745;expires=1795575745"),
        (";expires=1795575745", ';expires="1795575745"'),
        (";expires=1795575745", ";expires=-1"),
        (";expires=1795575745", ";expires=1795575745;tag=1"),
        ('("@request-target" ', '("@request-target"  '),
        ('("@request-target" ', '("@request-target" "@request-target" '),
        ('"@authority" ', '"@authority";req '),
        ("sig1=", "sig1 ="),
        ("sig1=(", 'sig0=("x-api-key");created=1, sig1=('),
    ],
)
def test_what_is_malformed_ambiguous_or_weak_is_refused_even_if_it_was_signed(old, new):
    given = SIGNATURE_INPUT.replace(old, new)
    assert given != SIGNATURE_INPUT
    with pytest.raises(Unauthenticated):
        check(given=given, proof=signed(given) if "req" not in new and "sig0" not in new else SIGNATURE)


@pytest.mark.parametrize("proof", ["", "sig2=" + SIGNATURE[5:], "sig1=::", SIGNATURE[:-2] + ":", "sig1=" + "A" * 9_000])
def test_a_signature_field_that_is_none_is_refused(proof):
    with pytest.raises(Unauthenticated):
        parse_signature(SIGNATURE_INPUT, proof)


def test_a_signature_opens_one_connection_for_as_long_as_it_is_good():
    nonces = Nonces()
    signature = check()
    nonces.spend(signature, now=CREATED)
    for later in (0, 1, 35):
        with pytest.raises(Unauthenticated):
            nonces.spend(signature, now=CREATED + later)
    nonces.spend(replace(signature, nonce="another" * 4), now=CREATED)
    nonces.spend(replace(signature, keyid="another"), now=CREATED)


def test_nonces_are_forgotten_when_their_signatures_are_too_old_and_are_bounded(monkeypatch):
    monkeypatch.setattr(audiohook, "_MAX_NONCES", 3)
    nonces = Nonces()
    signature = check()
    for number in range(3):
        nonces.spend(replace(signature, nonce=f"{number:022}"), now=CREATED)
    with pytest.raises(Unavailable):
        nonces.spend(replace(signature, nonce="3" * 22), now=CREATED)
    nonces.spend(replace(signature, nonce="3" * 22), now=CREATED + 41)
    assert len(nonces._seen) == 1
