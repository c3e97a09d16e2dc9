"""SIPREC metadata from broken and hostile senders: a refusal comes out, or facts within their bounds."""

import contextlib
import tracemalloc

import pytest

from tests.helpers.damaged import MUTATIONS, mutated
from tests.helpers.siprec import document
from vault.errors import Invalid
from vault.protocol.facts import siprec

NAMES = ["rfc7865", "oracle", "audiocodes", "cube", "avaya"]


@pytest.mark.parametrize("name", NAMES)
def test_only_a_refusal_comes_out_of_a_damaged_document(name):
    lines = document(name).splitlines(keepends=True)
    tracemalloc.start()
    for seed in range(MUTATIONS // len(NAMES)):
        pieces = mutated(lines, seed)
        damaged = b"".join(each.encode(errors="replace") if isinstance(each, str) else each for each in pieces)
        try:
            facts = siprec.facts(siprec.parse(siprec.part_of("text/xml", damaged)))
        except Invalid:
            continue
        assert all(len(value) < 12_000 for value in facts.extra.values())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 << 20


def test_only_a_refusal_comes_out_of_a_damaged_body_of_parts():
    body = [b"--b\r\n", b"Content-Type: application/sdp\r\n", b"\r\n", b"v=0\r\n", b"--b\r\n"]
    body += [b"Content-Type: application/rs-metadata+xml\r\n", b"\r\n", document("cube"), b"\r\n--b--\r\n"]
    for seed in range(200):
        pieces = mutated(body, seed)
        damaged = b"".join(each.encode(errors="replace") if isinstance(each, str) else each for each in pieces)
        with contextlib.suppress(Invalid):
            siprec.facts(siprec.parse(siprec.part_of("multipart/mixed; boundary=b", damaged)))
