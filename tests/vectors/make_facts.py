"""Sealed call facts."""

from tests.vectors.encoding import seed
from tests.vectors.make_chunked import flipped
from tests.vectors.make_segment import KEY, RECORDING
from vault.crypto.sealed import seal_facts
from vault.model import CallFacts

NAME = "facts"
ABOUT = "Call facts sealed under the leaf key of the metadata part (`data_key`), bound to `recording`."

NONCE = seed("facts nonce", 12)


def facts():
    return CallFacts(
        caller="+441632960001",
        called="+441632960999",
        direction="in",
        tags=("clearing", "überprüft"),
        extra={"queue": "admissions", "agent": "17"},
    )


def case(name, outcome, sealed, *, key=KEY, recording=RECORDING, opened=None):
    found = {
        "name": name,
        "outcome": outcome,
        "data_key": key.material.hex(),
        "recording": recording,
        "sealed": bytes(sealed).hex(),
    }
    if opened is None:
        return found
    return found | {
        "facts": {
            "caller": opened.caller,
            "called": opened.called,
            "direction": opened.direction,
            "tags": list(opened.tags),
            "extra": dict(opened.extra),
        }
    }


def cases():
    sound = seal_facts(KEY, RECORDING, facts(), nonce=NONCE)
    return [
        case("everything known", "ok", sound, opened=facts()),
        case("nothing known", "ok", seal_facts(KEY, RECORDING, CallFacts(), nonce=NONCE), opened=CallFacts()),
        case("another recording", "tampered", sound, recording="rec_" + "0" * 32),
        case("nonce changed", "tampered", flipped(sound, 1)),
        case("last byte missing", "tampered", sound[:-1]),
        case("no room for a tag", "truncated", sound[:28]),
        case("version 2", "format", b"\x02" + sound[1:]),
        case("nothing", "format", b""),
    ]
