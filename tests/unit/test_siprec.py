"""SIPREC metadata as senders really shape it; names and numbers are changed.

`rfc7865.xml` after RFC 7865 section 9; `oracle.xml` after what Acme Packet/Oracle session border controllers send (the
drafts' nested `send`, `apkt` extensions); `audiocodes.xml` after the AudioCodes SIP recording guide (with the unbound
prefix that its devices send); `cube.xml` after the Cisco CUBE configuration guide, "SIPREC"; `avaya.xml` after Avaya
Session Manager, here with a prefix.
"""

import json

import pytest

from tests.helpers.siprec import document
from vault.errors import Invalid
from vault.protocol.facts import siprec
from vault.protocol.facts.parties import read_parties


@pytest.mark.parametrize(
    ("name", "caller", "called", "labels", "started"),
    [
        ("rfc7865", "+441632960001", "+441632960100", [("97",), ("96",)], "2010-12-16T23:41:07Z"),
        ("oracle", "+441632960001", "+441632960100", [("553654188",), ("553654187",)], "2015-04-28T10:40:29"),
        ("audiocodes", "1056", "+441632960182", [("1",), ("2",)], "2014-10-10T01:24:12Z"),
        ("cube", "+441632960007", "+441632960042", [("1",), ("2",)], "2017-03-27T09:18:58.531Z"),
        ("avaya", "1001", "2002", [("caller-stream",), ("callee-stream",)], "2026-01-30T10:00:00Z"),
    ],
)
def test_each_senders_shape_gives_the_sides_their_numbers_and_their_streams(name, caller, called, labels, started):
    metadata = siprec.parse(document(name))
    facts = read_parties(siprec.facts(metadata))
    assert (facts.caller, facts.called) == (caller, called)
    assert [each.labels for each in metadata.participants] == labels
    assert metadata.started == facts.extra["siprec_started"] == started
    assert len(json.loads(facts.extra["siprec_participants"])) == 2


def test_when_each_participant_came_and_went_is_told():
    first, second = siprec.parse(document("cube")).participants
    assert (first.name, first.associated, first.disassociated) == ("RECEPTION 7", "2017-03-27T09:18:58.531Z", "")
    assert second.disassociated == "2017-03-27T09:20:00.000Z"


@pytest.mark.parametrize(
    ("aor", "number"),
    [
        ("sip:%2B442079460123@sbc.example", "+442079460123"),
        ("sip:020%207946%200123:pw@sbc.example;user=phone", "+442079460123"),
        ("&lt;sips:+442079460123;phone-context=example@sbc.example&gt;;tag=1", "+442079460123"),
        ("tel:+44-20-7946-0123;ext=7", "+442079460123"),
        ("442079460123@sbc.example", "+442079460123"),
        ("sip:2001%23@sbc.example", "2001#"),
        ("sip:%0A%00@sbc.example", None),
        ("sip:sbc.example:5060", None),
        ("sip:@sbc.example", None),
    ],
)
def test_an_address_tells_the_number_that_it_stands_for_however_it_is_written(aor, number):
    said = f"<recording><participant id='1'><nameID aor='{aor}'/></participant></recording>"
    metadata = siprec.parse(said.encode())
    assert read_parties(siprec.facts(metadata)).caller == number
    assert metadata.participants[0].aor


@pytest.mark.parametrize("namespace", [b" xmlns='urn:ietf:params:xml:ns:recording'", b""])
def test_the_namespace_does_not_matter(namespace):
    plain = document("rfc7865").replace(b" xmlns='urn:ietf:params:xml:ns:recording:1'", namespace)
    assert siprec.parse(plain) == siprec.parse(document("rfc7865"))


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1"])
def test_the_documents_own_encoding_is_used(encoding):
    text = document("cube").decode().replace("UTF-8", encoding).replace("RECEPTION 7", "Réception")
    assert siprec.parse(text.encode(encoding)).participants[0].name == "Réception"


def test_the_metadata_is_found_between_the_other_parts_of_a_sip_body():
    parts = [b"Content-Type: application/sdp\r\n\r\nv=0\r\n", None, b"Content-Type: text/plain\r\n\r\nx"]
    parts[1] = b"Content-Disposition: recording-session\r\ncontent-type: application/rs-metadata+xml\r\n\r\n"
    parts[1] += document("oracle")
    body = b"".join(b"--unique-boundary-1\r\n" + part + b"\r\n" for part in parts) + b"--unique-boundary-1--\r\n"
    for quoted in ("unique-boundary-1", '"unique-boundary-1"'):
        found = siprec.part_of(f"multipart/mixed;boundary={quoted}", body)
        assert siprec.parse(found) == siprec.parse(document("oracle"))


@pytest.mark.parametrize(
    "kind", ["audio/basic", "", "multipart/mixed", "multipart/mixed; boundary=other", "application/sdp"]
)
def test_what_carries_no_metadata_is_refused(kind):
    with pytest.raises(Invalid):
        siprec.part_of(kind, b"--boundary\r\n\r\nv=0\r\n--boundary--")


LAUGHS = (
    b"<!DOCTYPE recording [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]><recording><session>&b;</session></recording>"
)
OUTSIDE = b"<!DOCTYPE recording SYSTEM 'file:///etc/passwd'><recording/>"


@pytest.mark.parametrize(
    "hostile",
    [
        LAUGHS,
        OUTSIDE,
        b"<recording>&undefined;</recording>",
        b"<recording>" * 30 + b"</recording>" * 30,
        b"<recording>" + b"<a/>" * 5000 + b"</recording>",
        b"<recording/>" + b" " * siprec.MAX_BYTES,
        b"<recording",
        b"<?xml version='1.0' encoding='no-such'?><recording/>",
        b"<html/>",
        b"",
    ],
    ids=["entities", "external", "undefined", "deep", "many", "long", "cut", "encoding", "other", "nothing"],
)
def test_a_hostile_or_broken_document_is_refused_without_repeating_it(hostile):
    with pytest.raises(Invalid) as caught:
        siprec.parse(hostile)
    assert "ha" not in caught.value.message.split()
    assert "passwd" not in caught.value.message


def test_a_thousand_participants_are_bounded():
    many = b"".join(
        b"<participant id='%d'><nameID aor='sip:%d@x'><name>%s</name></nameID></participant>" % (n, n, b"n" * 5000)
        for n in range(40)
    )
    facts = siprec.facts(siprec.parse(b"<recording>" + many + b"</recording>"))
    assert len(facts.extra["siprec_participants"]) < 10_000
