"""The parties of a call in one spelling each, so that a search finds them however a recorder wrote them.

A full telephone number becomes E.164. A recorder may send it as people write it, as a `tel:` URI (RFC 3966), as a
`sip:` or `sips:` URI (RFC 3261 section 19.1), as `user@host`, or as any of these in a name-addr with a display name,
parameters and URI escapes. Digits that are only part of a name do not count as a number.

Other parties lose their display name, password, parameters and port. A short number becomes its digits without the
host. A name becomes `name@host`, or stays as it was sent if it has no host. A URI of another scheme, such as
`client:alice@host`, keeps its scheme. A caller who withheld the number is ANONYMOUS.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import unquote

import phonenumbers
from phonenumbers import CountryCodeSource, PhoneNumberFormat, ValidationResult

from vault.errors import Invalid
from vault.model import CallFacts
from vault.protocol.facts.stated import decoded

DEFAULT_REGION: Final = "GB"
"""The region of a number without a country code, unless a tenant has another."""
ANONYMOUS: Final = "anonymous"
"""A caller who withheld the number (RFC 3323)."""

SENT: Final = ("caller_sent", "called_sent")
"""The extra facts with the parties as the recorder sent them, if that differs from their spelling here."""

_NAME_ADDR: Final = re.compile(r'\s*(?:"(?:[^"\\]|\\.)*"|[^<"]*)\s*<([^<>]*)>?')
_SCHEME: Final = re.compile(r"(sips?|tel|callto|whatsapp):(?://)?", re.IGNORECASE)
_SPELT: Final = re.compile(r"\(?\+?[\s().\-/]*\d[\d\s().\-/]*", re.ASCII)
_DIALLED: Final = re.compile(r"[\d*#][\d*#\s()\-]*|\+\d[\d\s().\-/]*", re.ASCII)
_QUOTED: Final = re.compile(r"""(["'])(.*)\1""", re.DOTALL)
_OTHER_SCHEME: Final = re.compile(r"[a-z][a-z\d+.\-]*:", re.ASCII | re.IGNORECASE)
"""The beginning of a URI of another scheme. All text behind it belongs to the name."""
_FULL: Final = re.compile(r"\+\d+", re.ASCII)
_QUAD: Final = re.compile(r"(?:[1-9]?\d|[12]\d\d)(?:\.(?:[1-9]?\d|[12]\d\d)){3}", re.ASCII)
"""An IPv4 address."""
_AFTERWARDS: Final = re.compile(r"\s*(?:,.*|(?:x|ext\.?|extension)\s*\d{1,7})", re.ASCII | re.IGNORECASE)
"""An extension, or digits that are dialled after the answer."""
_CONTEXT: Final = re.compile(r";phone-context=(\+[\d().\-]+)", re.ASCII | re.IGNORECASE)
_FILLING: Final = re.compile(r"[\s().\-/_]")
_DASHES: Final = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
_WITHHELD: Final = frozenset(
    {
        *("anonymous", "restricted", "private", "withheld", "unavailable", "unknown", "blocked", "nocallerid"),
        *("privatenumber", "numberwithheld", "withheldnumber", "unknownnumber", "unknowncaller", "privatecaller"),
    }
)
_WITHHELD_DIGITS: Final = frozenset({"+266696687", "+7378742833", "+2562533", "+8656696", "+86282452253"})
"""The same words on a keypad, as Twilio sends them:
https://support.twilio.com/hc/en-us/articles/223179988
"""
_FORMER: Final = {52: (("1",), ("01", "044", "045"))}
"""Former prefixes of numbering plans, by country code: those behind the code, and those dialled within the country.

The number is what follows them. Mexico has had ten-digit numbers since 3 August 2019 (IFT, Plan Técnico Fundamental de
Numeración). Before that, mobile numbers were +52 1 from abroad, and many networks and messengers still send them so.
Without the country code, 1 before ten digits is a number of the North American plan.
"""
_LONG: Final = 9
"""A number without a prefix and with at least so many digits is not an internal number."""
_SIP: Final = ("sip", "sips")
_NOWHERE: Final = "anonymous.invalid"


def read_parties(facts: CallFacts, region: str = DEFAULT_REGION, *, known: CallFacts | None = None) -> CallFacts:
    """Return the facts with both parties in their one spelling, and as they were sent in the extras if that differs.

    A party that was a full number in the `known` facts of the call, from the same text, stays that number even if the
    region is another now. So a search for that number still finds the call.
    """
    extra = {name: text for name, text in facts.extra.items() if name not in SENT}
    numbers = {} if known is None else _full_numbers(known)
    found = []
    for name, text in zip(SENT, (facts.caller, facts.called), strict=True):
        spelt = None if text is None else numbers.get((name, text)) or party(text, region)
        found.append(spelt)
        if text and text != spelt:
            extra[name] = text
    return replace(facts, caller=found[0], called=found[1], extra=extra)


def reread_parties(known: CallFacts, region: str) -> CallFacts:
    """Return the facts of an existing call for a new `region`: full numbers stay, other parties are read again."""
    return read_parties(parties_as_sent(known), region, known=known)


def _full_numbers(known: CallFacts) -> dict[tuple[str, str], str]:
    """Return the full numbers among the parties, by the name of the party and the text that was sent."""
    stated = parties_as_sent(known)
    parties = ((known.caller, stated.caller), (known.called, stated.called))
    return {
        (name, words): spelt
        for name, (spelt, words) in zip(SENT, parties, strict=True)
        if spelt is not None and words is not None and _FULL.fullmatch(spelt) and party(spelt) == spelt
    }


def parties_as_sent(facts: CallFacts) -> CallFacts:
    """Return the facts with both parties as the recorder sent them."""
    caller, called = (facts.extra.get(name) for name in SENT)
    extra = {name: text for name, text in facts.extra.items() if name not in SENT}
    return replace(facts, caller=caller or facts.caller, called=called or facts.called, extra=extra)


def checked_region(text: str) -> str:
    """Return a region as ISO 3166-1 alpha-2 in capitals; Invalid if its telephone numbers are unknown."""
    region = text.strip().upper()
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise Invalid("numbering_region is not a region with telephone numbers", hint="two letters, such as GB or IE")
    return region


def party(text: str, region: str = DEFAULT_REGION) -> str | None:
    """Return the one spelling of a party that a recorder or a search wrote as `text`; None if it names no party.

    `region` (ISO 3166-1 alpha-2) is that of a number without a country code. The result is read as itself again, also
    if escapes contain escapes. A URI with only a host names no party.
    """
    found = _once(text, region)
    while found is not None and (again := _once(found, region)) != found:
        found = again  # it ends: each result is shorter, or a complete number
    return found


def _once(sent_text: str, region: str) -> str | None:
    text = _plain(sent_text)
    named = _NAME_ADDR.match(text) if "<" in text else None
    if named is not None:
        text = named[1].strip() or text.partition("<")[0].strip(' "')
    if (quoted := _QUOTED.fullmatch(text)) is not None:
        text = quoted[2].strip()
    scheme = _SCHEME.match(text)
    is_sip = scheme is not None and scheme[1].lower() in _SIP
    address = text if scheme is None else text[scheme.end() :]
    user, host = address, ""
    if (scheme is None or is_sip) and "@" in address:
        user, _, host = address.partition("@")
        host = _host(host)
        if is_sip or not _OTHER_SCHEME.match(user):
            user = user.partition(":")[0]
    elif is_sip and not address.startswith("+"):
        user = _host(address)
        if not _DIALLED.fullmatch(user):
            return None
    context = _CONTEXT.search(user)
    user = _plain(decoded(unquote(user.partition(";")[0], errors="surrogateescape")))
    if context is not None and not user.startswith("+"):
        user = context[1] + user
    return _read(user, host, region)


def _plain(text: str) -> str:
    """Return the text with one form of spaces, dashes and digits, and without unprintable characters."""
    text = unicodedata.normalize("NFKC", text).translate(_DASHES)
    text = "".join(str(unicodedata.decimal(each, each)) for each in text)
    spaced = (" " if unicodedata.category(each) in {"Zs", "Cc"} else each for each in text)
    return "".join(each for each in spaced if each.isprintable()).strip()


def _host(text: str) -> str:
    """Return the host of a URI, lower-case, without port, parameters and headers."""
    bare = re.split(r"[;?>]", text, maxsplit=1)[0].strip().lower()
    return re.sub(r":\d*$", "", bare) if not bare.startswith("[") else bare.partition("]")[0] + "]"


def _read(user: str, host: str, region: str) -> str | None:
    number = _full_number(user, region)
    if number in _WITHHELD_DIGITS or _FILLING.sub("", user).lower() in _WITHHELD or host == _NOWHERE:
        return ANONYMOUS
    if number is not None:
        return number
    if _DIALLED.fullmatch(user):
        return _FILLING.sub("", user)
    return f"{user}@{host}" if user and host else user or None


def _full_number(text: str, region: str) -> str | None:
    """Return E.164 if the whole text is a number that can be dialled from anywhere; None for other text."""
    spelt = _AFTERWARDS.sub("", text)
    if not _SPELT.fullmatch(spelt) or _QUAD.fullmatch(spelt):
        return None
    digits = re.sub(r"\D", "", spelt)
    international = "+" in spelt
    try:
        parsed = phonenumbers.parse(f"+{digits}" if international else digits, region, keep_raw_input=True)
    except phonenumbers.NumberParseException:
        return None
    found = phonenumbers.format_number(parsed, PhoneNumberFormat.E164)
    if international and found in _WITHHELD_DIGITS:
        return found
    if (current := _current(parsed)) is not None:
        return current
    # An internal extension of three or four digits would be "possible locally".
    if phonenumbers.is_possible_number_with_reason(parsed) != ValidationResult.IS_POSSIBLE:
        return None
    return found if _is_prefixed(parsed, digits, region) or _is_long(parsed) else None


def _current(parsed: phonenumbers.PhoneNumber) -> str | None:
    """Return E.164 of a number that is written with a former prefix of its numbering plan; None for any other."""
    spelt = phonenumbers.national_significant_number(parsed)
    abroad, within = _FORMER.get(parsed.country_code or 0, ((), ()))
    stated = parsed.country_code_source != CountryCodeSource.FROM_DEFAULT_COUNTRY
    for prefix in (*abroad, *within) if stated else within:
        found = f"+{parsed.country_code}{spelt.removeprefix(prefix)}"
        if spelt.startswith(prefix) and phonenumbers.is_valid_number(phonenumbers.parse(found)):
            return found
    return None


def former_spellings(spelt: str) -> Sequence[str]:
    """Return the spellings that a party has in recordings from before its former prefixes were known here."""
    for code, (abroad, within) in _FORMER.items():
        if spelt.startswith(f"+{code}") and _FULL.fullmatch(spelt):
            number = spelt.removeprefix(f"+{code}")
            stated = (f"{plus}{code}{prefix}{number}" for prefix in abroad for plus in ("+", ""))
            return (*stated, *(prefix + number for prefix in within))
    return ()


def _is_prefixed(parsed: phonenumbers.PhoneNumber, digits: str, region: str) -> bool:
    """Tell whether a prefix shows that this is not an internal number: +, 00, or the region's trunk prefix."""
    if parsed.country_code_source in {
        CountryCodeSource.FROM_NUMBER_WITH_PLUS_SIGN,
        CountryCodeSource.FROM_NUMBER_WITH_IDD,
    }:
        return True
    trunk = phonenumbers.ndd_prefix_for_region(region, strip_non_digits=True)
    return trunk is not None and trunk != "" and digits.startswith(trunk)


def _is_long(parsed: phonenumbers.PhoneNumber) -> bool:
    """Tell whether it is longer than internal numbers, or valid in its numbering plan."""
    return phonenumbers.is_valid_number(parsed) or len(phonenumbers.national_significant_number(parsed)) >= _LONG
