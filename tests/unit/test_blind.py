"""The blind index: written down a second time, and what it must not give away."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors.generate import load
from vault.crypto.values import Field, token
from vault.model import DataKey

LEAF = DataKey(bytes(range(32)))


@pytest.mark.parametrize("case", load("blind"), ids=lambda case: case["name"])
def test_tokens_are_those_of_the_document(case):
    info = b"callvault/v1/blind-index\0" + case["field"].encode()
    key = HKDFExpand(algorithm=SHA512(), length=32, info=info).derive(bytes.fromhex(case["leaf"]))
    expected = hmac.new(key, case["value"].encode(), hashlib.sha256).hexdigest()[:32]
    assert case["token"] == expected
    assert token(DataKey(bytes.fromhex(case["leaf"])), Field(case["field"]), case["value"]) == expected


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.text(max_size=40))
def test_months_and_fields_share_no_token(first, second, value):
    leaves = {first, second}
    tokens = {token(DataKey(leaf), field, value) for leaf in leaves for field in Field}
    assert len(tokens) == len(leaves) * len(Field)
