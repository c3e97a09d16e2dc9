"""Golden transcripts, damaged: what a machine hears when the recorder, or what lies between, is broken or hostile."""

import random

from tests.helpers.soak import SOAK

MUTATIONS = 100_000 if SOAK else 1_000
"""How many damaged transcripts a machine must survive."""

_NASTY = (
    "",
    b"",
    "{}",
    "[]",
    "null",
    '"',
    "\x00",
    "1e999",
    "-1",
    "9" * 5_000,
    '{"a":' * 2_000,
    "[" * 100_000,
    '{"event":null}',
    '{"event":{"event":[]}}',
    '"\ud800"',
    b"\x00" * 65_536,
    b"\xff",
    "\ufeff{}",
)


def mutated(transcript, seed):
    """Return the messages of `transcript` with one to four of them, or their order, damaged; the seed decides how."""
    chance = random.Random(seed)
    messages = list(transcript)
    for _ in range(chance.randint(1, 4)):
        if not messages:
            break
        at = chance.randrange(len(messages))
        other = chance.randrange(len(messages))
        match chance.randrange(8):
            case 0:
                messages[at] = _flipped(messages[at], chance)
            case 1:
                del messages[at]
            case 2:
                messages.insert(other, messages[at])
            case 3:
                messages[at], messages[other] = messages[other], messages[at]
            case 4:
                messages[at] = messages[at][: chance.randint(0, len(messages[at]))]
            case 5:
                messages[at] = _other_kind(messages[at])
            case 6:
                messages.insert(at, chance.choice(_NASTY))
            case _:
                del messages[at:]
    return messages


def _flipped(message, chance):
    data = bytearray(message.encode(errors="surrogatepass") if isinstance(message, str) else message)
    for _ in range(chance.randint(1, 3)):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data.decode(errors="replace") if isinstance(message, str) else bytes(data)


def _other_kind(message):
    if isinstance(message, str):
        return message.encode(errors="surrogatepass")
    return message.decode("latin-1")
