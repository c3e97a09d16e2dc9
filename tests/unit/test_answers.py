import pytest

from vault.crypto.values import open_answer, seal_answer
from vault.errors import FormatError, Malformed, Tampered
from vault.ids import TokenId
from vault.model import DataKey
from vault.services.repeats import checked_key

ANN, BOB = TokenId("tok_" + "0" * 32), TokenId("tok_" + "1" * 32)
KEY, OTHER = DataKey(b"k" * 32), DataKey(b"o" * 32)


def test_an_answer_opens_only_with_keyring_key_and_token():
    sealed = seal_answer(KEY, ANN, "told", b"answer", nonce=b"n" * 12)
    assert b"answer" not in sealed
    assert open_answer(KEY, ANN, "told", sealed) == b"answer"
    for key, token, told, data in (
        (OTHER, ANN, "told", sealed),
        (KEY, BOB, "told", sealed),
        (KEY, ANN, "toll", sealed),
        (KEY, ANN, "told", sealed[:-1]),
        (KEY, ANN, "told", sealed[:5]),
    ):
        with pytest.raises(Tampered):
            open_answer(key, token, told, data)
    with pytest.raises(FormatError):
        open_answer(KEY, ANN, "told", b"\x02" + sealed[1:])


def test_a_key_means_the_same_with_and_without_its_quotes():
    assert checked_key('"a-b"') == checked_key("a-b") == checked_key(' "a-b" ') == "a-b"
    for wrong in ("", '""', '"', "é", "x" * 256, 'a"b', "a\nb"):
        with pytest.raises(Malformed):
            checked_key(wrong)
