"""HTTP message signatures (RFC 9421) as AudioHook clients make them: an HMAC-SHA256 over fields of a request.

Of RFC 9421: sections 2.1, 2.2.3, 2.2.5, 2.3, 2.5, 3.3.3 and 4, without component parameters and with one signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vault.errors import Unauthenticated, Unavailable

MAX_AGE_SECONDS: Final = 30
"""How old a signature may be; those of AudioHook expire after that time."""
SKEW_SECONDS: Final = 5
"""How far the two clocks may differ."""
MIN_NONCE: Final = 22
"""The least length of a nonce in characters: 128 bits in base64."""

_MAX_FIELD: Final = 4_096
_MAX_NONCES: Final = 100_000
_STRING: Final = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'  # RFC 8941 section 3.3.3
_KEY: Final = r"[a-z*][a-z0-9_\-.*]*"
_LIST: Final = rf"\((?:{_STRING}(?: {_STRING})*)?\)"
_PARAMETERS: Final = rf"(?:;{_KEY}=(?:{_STRING}|[0-9]{{1,15}}))*"
_INPUT: Final = re.compile(rf"({_KEY})=(({_LIST})({_PARAMETERS}))", re.ASCII)
_SIGNATURE: Final = re.compile(rf"({_KEY})=:([A-Za-z0-9+/]{{43}}=):", re.ASCII)
_EACH_STRING: Final = re.compile(_STRING, re.ASCII)
_EACH_PARAMETER: Final = re.compile(rf";({_KEY})=(?:({_STRING})|([0-9]{{1,15}}))", re.ASCII)
_NAMES: Final = frozenset({"created", "expires"})
_WORDS: Final = frozenset({"keyid", "nonce", "alg"})
_ALGORITHM: Final = "hmac-sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature as it was sent, not yet verified."""

    components: tuple[str, ...]
    created: int
    expires: int | None
    keyid: str = field(repr=False)
    nonce: str = field(repr=False)
    parameters: str = field(repr=False)
    """The value of `@signature-params` as it was sent."""
    value: bytes = field(repr=False)


def parse_signature(signature_input: str, signature: str) -> Signature:
    """Parse the two header fields; Unauthenticated if they are malformed, ambiguous or of another algorithm."""
    given = _INPUT.fullmatch(signature_input.strip()) if len(signature_input) <= _MAX_FIELD else None
    proof = _SIGNATURE.fullmatch(signature.strip()) if len(signature) <= _MAX_FIELD else None
    if given is None or proof is None or given[1] != proof[1]:
        raise _refused()
    components = tuple(_unquoted(each) for each in _EACH_STRING.findall(given[3]))
    words: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for name, word, number in _EACH_PARAMETER.findall(given[4]):
        if name in words or name in numbers or name not in (_WORDS if word else _NAMES):
            raise _refused()
        if word:
            words[name] = _unquoted(word)
        else:
            numbers[name] = int(number)
    if words.get("alg", _ALGORITHM) != _ALGORITHM or not {"keyid", "nonce"} <= words.keys() or "created" not in numbers:
        raise _refused()
    try:
        value = base64.b64decode(proof[2], validate=True)
    except binascii.Error as error:
        raise _refused() from error
    return Signature(
        components=components,
        created=numbers["created"],
        expires=numbers.get("expires"),
        keyid=words["keyid"],
        nonce=words["nonce"],
        parameters=given[2],
        value=value,
    )


def signature_base(signature: Signature, values: Mapping[str, str]) -> bytes:
    """Return the bytes that are signed (RFC 9421 section 2.5); Unauthenticated if the request lacks a component."""
    lines = []
    for name in signature.components:
        if name not in values:
            raise _refused()
        lines.append(f'"{name}": {values[name].strip()}')
    lines.append(f'"@signature-params": {signature.parameters}')
    return "\n".join(lines).encode("latin-1", errors="replace")


def verify(
    signature: Signature, *, key: bytes, values: Mapping[str, str], required: frozenset[str], now: float
) -> None:
    """Raise Unauthenticated unless `key` made the signature, it covers the `required` components, and it is recent.

    `values` are the request's components by their lower-case names; `now` is in Unix seconds. `Nonces` checks that the
    nonce is new.
    """
    made = hmac.new(key, signature_base(signature, values), hashlib.sha256).digest()
    if not hmac.compare_digest(made, signature.value):
        raise _refused()
    if len(set(signature.components)) != len(signature.components) or not required <= set(signature.components):
        raise _refused()
    if not now - MAX_AGE_SECONDS - SKEW_SECONDS <= signature.created <= now + SKEW_SECONDS:
        raise _refused()
    if signature.expires is not None and signature.expires < now - SKEW_SECONDS:
        raise _refused()
    if len(signature.nonce) < MIN_NONCE:
        raise _refused()


class Nonces:
    """The used nonces whose signatures are still valid, so that a signature opens only one connection."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}

    def spend(self, signature: Signature, *, now: float) -> None:
        """Mark the nonce of a verified signature as used; Unauthenticated if it was, Unavailable if there are too many.

        `now` is in Unix seconds.
        """
        # The dictionary is in order of arrival, so the oldest come first.
        while self._seen and self._seen[oldest := next(iter(self._seen))] <= now:
            del self._seen[oldest]
        if len(self._seen) >= _MAX_NONCES:
            raise Unavailable("too many signed connections arrive at once", retry_after_seconds=5)
        place = (signature.keyid, signature.nonce)
        if place in self._seen:
            raise _refused()
        self._seen[place] = now + MAX_AGE_SECONDS + 2 * SKEW_SECONDS


def _unquoted(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", text[1:-1])


def _refused() -> Unauthenticated:
    """Return the same error for all causes, so that an attacker learns nothing."""
    return Unauthenticated(
        "the signature or the token is unknown, wrong, too old or was used before",
        hint="X-API-KEY is the recorder token's id, and the client secret its secret in base64; check both clocks",
    )
