"""One party, one spelling: what recorders send for a number, a name or nobody."""

import re
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import Invalid
from vault.model import CallFacts
from vault.protocol.facts.parties import (
    ANONYMOUS,
    checked_region,
    former_spellings,
    parties_as_sent,
    party,
    read_parties,
    reread_parties,
)

SPELLINGS = (
    "+441632905657",
    "01632 905657",
    "+44 (0)1632 905657",
    "(+44) 1632-905657",
    "00441632905657",
    "441632905657",
    "01632\N{EN DASH}905657",
    "\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH DIGIT FOUR}\N{FULLWIDTH DIGIT FOUR}1632905657",
    "\u202a+441632905657\u202c",
    "01632905657,,123#",
    "01632 905657 ext. 12",
    "01632905657;tag=1",
    "01632905657@10.0.0.1",
    "tel:+44-1632-905657;ext=7",
    "tel:905657;phone-context=+441632",
    "sip:+441632905657@pbx.example.com",
    "sips:%2B441632905657@pbx.example.com:5061;transport=tls?Subject=x",
    "sip:01632905657:secret@pbx.example.com;user=phone",
    "sip:+441632905657;phone-context=pbx.example.com@10.0.0.1",
    "sip:+441632905657",
    "sip:01632905657",
    "sip:441632905657;user=phone",
    '"+441632905657"',
    "'01632 905657'",
    "\u0660\u0661\u0666\u0663\u0662\u0669\u0660\u0665\u0666\u0665\u0667",
    '"Bob" <sip:+441632905657@pbx.example.com>;tag=9',
    '"Bob <the boss>, \\"B\\"" <sip:+441632905657@pbx.example.com>',
    "Bob <tel:+441632905657>",
    "<sip:+441632905657@pbx.example.com",
    "whatsapp:+441632905657",
)


def test_a_prefix_that_a_numbering_plan_gave_up_is_no_part_of_a_number():
    for said in ("+525512345678", "+52 1 55 1234 5678", "0052 1 55 1234 5678", "sip:+5215512345678@pbx.example.com"):
        assert party(said) == "+525512345678", said
    for said in ("55 1234 5678", "01 55 1234 5678", "044 55 1234 5678", "045 55 1234 5678", "5215512345678"):
        assert party(said, "MX") == "+525512345678", said
    assert party("+52 1 00 1234 5678") == "+5210012345678", "no number of the plan"
    assert party("+54 9 11 2345 6789") != party("+54 11 2345 6789"), "a mobile and a fixed line, both given out"
    before = CallFacts(caller="+5215512345678")
    assert reread_parties(before, "GB").caller == "+525512345678"


def test_a_number_of_another_country_is_not_read_or_found_as_one_with_a_former_prefix():
    for said in ("13125551234", "1 664 555 1234", "(1) 3125551234"):
        digits = re.sub(r"\D", "", said)
        assert party(f"+{digits}", "MX") == f"+{digits}"
        assert not (party(said, "MX") or "").startswith("+52"), said
        assert digits not in former_spellings(f"+52{digits[1:]}"), "an erasure of one would take another's calls"
    assert {"+5213125551234", "5213125551234", "0443125551234"} <= set(former_spellings("+523125551234"))


def test_escapes_that_are_no_utf_8_tell_names_apart():
    assert party("sip:ren%E9@pbx.example.com") == "ren\u00e9@pbx.example.com" == party("sip:ren%C3%A9@pbx.example.com")
    assert party("sip:ren%E8@pbx.example.com") == "ren\u00e8@pbx.example.com"


def test_a_number_is_one_party_in_every_spelling():
    assert {spelling: party(spelling) for spelling in SPELLINGS} == dict.fromkeys(SPELLINGS, "+441632905657")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("client:maria_7654321", "client:maria_7654321"),
        ("client:tom-7654321", "client:tom-7654321"),
        ("agent 1001234567", "agent 1001234567"),
        ("sip:agent1001234567@pbx.example.com", "agent1001234567@pbx.example.com"),
        ("0x1632905657", "0x1632905657"),
        ("192.168.10.20", "192.168.10.20"),
        ("desk 12", "desk 12"),
        ("client:alice@example.com", "client:alice@example.com"),
        ("client:bob@example.com", "client:bob@example.com"),
        ("xmpp:+441632905657@example.com", "xmpp:+441632905657@example.com"),
    ],
)
def test_digits_within_a_name_are_no_number(said, found):
    assert party(said) == found


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("60006", "60006"),
        ("sip:60006@carrier.example", "60006"),
        ("116 123", "116123"),
        ("tel:999", "999"),
        ("sip:2001%23@pbx.example.com", "2001#"),
        ("*67", "*67"),
        ("7654321", "7654321"),
        ("sip:201@pbx.example.com:5060", "201"),
        ("sip:201:5060", "201"),
        ("+999 12-34 56", "+999123456"),
        ("sip:+999123456@pbx.example.com", "+999123456"),
    ],
)
def test_a_short_number_is_its_digits_wherever_it_was_dialled(said, found):
    assert party(said) == found


@pytest.mark.parametrize(
    "said",
    [
        *("anonymous", "Restricted", "Private Number", "unavailable", "No Caller ID", "WITHHELD"),
        '"Anonymous" <sip:anonymous@anonymous.invalid>',
        "sip:c8oqz84zk7z@anonymous.invalid",
        "+266696687",
    ],
)
def test_who_withheld_the_number_is_anonymous(said):
    assert party(said) == ANONYMOUS


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("alice", "alice"),
        ("alice:pw@pbx.example.com", "alice:pw@pbx.example.com"),
        ("sip:alice:pw@PBX.Example.com:5061;x=1", "alice@pbx.example.com"),
        ('"Alice" <alice@pbx.example.com>', "alice@pbx.example.com"),
        ("5f3c@[2001:db8::1]:5060", "5f3c@[2001:db8::1]"),
        ('"Bob" <>', "Bob"),
    ],
)
def test_a_name_stays_what_it_is_with_its_host_alone(said, found):
    assert party(said) == found


@pytest.mark.parametrize(
    "said", ["", "  ", "<>", "\u202a", "sip:", "sip:pbx.example.com:5060", "sip:@pbx.example.com", "sip:10.0.0.1:5060"]
)
def test_nothing_and_the_address_of_a_host_are_nobody(said):
    assert party(said) is None


def test_a_number_without_a_country_code_is_read_where_the_tenant_dials():
    assert party("01 234 5678", "IE") == "+35312345678"
    assert party("(212) 555-0123", "US") == "+12125550123"
    assert party("2125550123", "US") == "+12125550123"
    assert party("sip:0301234567@sbc.example", "DE") == "+49301234567"
    assert party("+441632905657", "US") == "+441632905657"


def test_a_region_is_one_with_numbers():
    assert checked_region(" ie ") == "IE"
    for wrong in ("", "UK", "Ireland", "XX", "001"):
        with pytest.raises(Invalid):
            checked_region(wrong)


@given(st.text(max_size=60) | st.from_regex(r"(\"?[a-z ]{0,5}\"? ?<)?(sip:|tel:)?[+0-9a-z ;@.:=%()<>-]{0,30}>?"))
def test_whatever_is_said_is_read_and_read_the_same_again(said):
    found = party(said)
    if found is None:
        return
    assert party(found) == found
    assert found == found.strip() != ""
    assert not any(unicodedata.category(each) in {"Cf", "Cc"} for each in found)


def test_what_was_sent_is_kept_where_it_differs():
    said = CallFacts(caller="sip:01632905657@pbx", called="201", extra={"queue": "night", "called_sent": "forged"})
    found = read_parties(said)
    assert found.caller == "+441632905657"
    assert found.called == "201"
    assert found.extra == {"queue": "night", "caller_sent": "sip:01632905657@pbx"}
    assert parties_as_sent(found).caller == said.caller
    assert read_parties(parties_as_sent(found), "IE").caller != found.caller
    assert read_parties(CallFacts()) == CallFacts()


def test_a_full_number_stays_in_every_region_until_other_words_name_the_party():
    known = read_parties(CallFacts(caller="020 7946 0123", called="6123 4567"), "GB")
    again = reread_parties(known, "SG")
    assert (again.caller, again.called) == ("+442079460123", "+6561234567")
    assert again.extra == {"caller_sent": "020 7946 0123", "called_sent": "6123 4567"}
    late = read_parties(replace(parties_as_sent(known), caller="01 234 5678"), "IE", known=known)
    assert (late.caller, late.extra["caller_sent"]) == ("+35312345678", "01 234 5678")
