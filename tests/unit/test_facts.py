"""Sealed call facts."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors.make_facts import NONCE, facts
from tests.vectors.make_segment import KEY, RECORDING
from vault.crypto.derive import Purpose, subkey
from vault.crypto.sealed import open_facts, seal_facts
from vault.errors import FormatError, IntegrityError, Tampered
from vault.format import codec
from vault.ids import RecordingId
from vault.model import CallFacts, DataKey

SOUND = {"caller": None, "called": None, "direction": None, "tags": [], "extra": {}}


def sealed_value(value):
    plain = codec.pack(value)
    return b"\1" + NONCE + AESGCM(subkey(KEY, Purpose.FACTS)).encrypt(NONCE, plain, b"\1" + RECORDING.encode())


@pytest.mark.parametrize("value", [facts(), CallFacts(), CallFacts(caller="anonymous", tags=("",))])
def test_facts_survive(value):
    assert open_facts(KEY, RECORDING, seal_facts(KEY, RECORDING, value, nonce=NONCE)) == value


def test_the_layout_is_the_documented_one():
    assert seal_facts(KEY, RECORDING, CallFacts(), nonce=NONCE) == sealed_value(SOUND)


def test_no_number_shows():
    assert b"441632" not in seal_facts(KEY, RECORDING, facts(), nonce=NONCE)


def test_facts_of_another_recording_or_key_are_refused():
    sealed = seal_facts(KEY, RECORDING, facts(), nonce=NONCE)
    with pytest.raises(Tampered):
        open_facts(KEY, RecordingId("rec_" + "0" * 32), sealed)
    with pytest.raises(Tampered):
        open_facts(DataKey(bytes(32)), RECORDING, sealed)


def test_every_bit_flip_and_truncation_is_refused():
    sealed = seal_facts(KEY, RECORDING, CallFacts(), nonce=NONCE)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            open_facts(KEY, RECORDING, bytes(changed))
    for end in range(len(sealed)):
        with pytest.raises(IntegrityError):
            open_facts(KEY, RECORDING, sealed[:end])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        SOUND | {"caller": 1},
        SOUND | {"direction": b"in"},
        SOUND | {"tags": [1]},
        SOUND | {"tags": None},
        SOUND | {"extra": {"a": 1}},
        SOUND | {"more": 1},
        {key: value for key, value in SOUND.items() if key != "called"},
    ],
)
def test_facts_of_another_shape_are_refused(value):
    with pytest.raises(FormatError):
        open_facts(KEY, RECORDING, sealed_value(value))


@pytest.mark.parametrize("nonce", [b"", bytes(11), bytes(13)])
def test_a_nonce_of_another_size_is_the_callers_mistake(nonce):
    with pytest.raises(ValueError, match="12 bytes"):
        seal_facts(KEY, RECORDING, CallFacts(), nonce=nonce)
