"""Damaged heads and documents of S3 requests: only the vault's own errors come of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.damaged import MUTATIONS, mutated
from tests.helpers.s3documents import MD5, document
from tests.helpers.sigv4 import NOW, PRESIGNED, S3, SECRET, authorized, streaming
from vault.errors import Invalid, VaultError
from vault.protocol.s3 import requests
from vault.protocol.s3.body import plan_body
from vault.protocol.s3.sigv4 import RequestHead, read_claim, verify

HEADS = [authorized(*S3[1]), PRESIGNED, authorized(streaming("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), "0" * 64)]


def damaged(head, seed):
    """Return the head with its lines damaged as those of a transcript."""
    lines = mutated([head.path, head.query, *(f"{name}\n{value}" for name, value in head.headers)], seed)
    wire = [line if isinstance(line, bytes) else line.encode(errors="surrogatepass") for line in lines]
    texts = [line.decode("utf-8", "surrogateescape") for line in wire]
    path, query, *rest = [*texts, "", ""]
    headers = [(name, value) for name, _, value in (line.partition("\n") for line in rest)]
    return RequestHead(method=head.method, path=path, query=query, headers=headers)


@pytest.mark.parametrize("head", HEADS)
def test_damaged_heads_end_in_an_answer(head):
    for seed in range(MUTATIONS // len(HEADS)):
        broken = damaged(head, seed)
        try:
            claim = read_claim(broken)
            requests.operation(broken.method, "key", broken.parameters(), copies=False)
            requests.meta_facts(broken.headers)
            plan_body(broken, claim)
            verify(claim, broken, SECRET, now=NOW)
        except VaultError:
            continue


def test_damaged_documents_end_in_an_answer():
    lines = document((1, MD5), (2, f"&quot;{MD5}&quot;")).replace(b"><", b">\n<").splitlines(keepends=True)
    for seed in range(MUTATIONS):
        pieces = mutated(lines, seed)
        text = b"".join(each if isinstance(each, bytes) else each.encode(errors="surrogatepass") for each in pieces)
        try:
            found = requests.parse_complete(text)
        except Invalid:
            continue
        assert found


@given(first=st.text(max_size=120), second=st.text(max_size=120))
def test_two_keys_never_lead_to_one_call(first, second):
    assert (requests.call_key_for(first) == requests.call_key_for(second)) is (first == second)
