"""Notes of open recordings, one sealed row each."""

from tests.vectors.encoding import seed
from tests.vectors.make_chunked import flipped
from tests.vectors.make_segment import KEY, RECORDING
from vault.crypto.values import seal_note
from vault.format.notes import Aside, Document, Etag, Missing, Pause, Tone, note_value

NAME = "notes"
ABOUT = (
    "Notes sealed under the leaf key of the audio part (`data_key`), bound to `recording` and their number `seq`. "
    "`note` is the opened value, with byte strings in hex."
)

NONCE = seed("note nonce", 12)
AT = 1_764_000_000_123


def kinds():
    return {
        "a gap": Missing(offset=16_000, at_ms=AT, missing_ms=340),
        "a pause that lasts": Pause(offset=16_000, at_ms=AT),
        "a pause that was resumed": Pause(offset=0, at_ms=AT, missing_ms=4_000, dropped=32_000, lasting=False),
        "a key": Tone(offset=1, at_ms=AT, digit="5"),
        "a key and how long": Tone(offset=1, at_ms=AT, digit="#", duration_ms=120),
        "a document": Document(offset=8, at_ms=AT, media_type="application/rs-metadata+xml", content=b"<recording/>"),
        "parts kept aside": Aside(offset=8, at_ms=AT, pieces=((2, 5), (7, 1))),
        "an ETag": Etag(offset=8, at_ms=AT, etag="d41d8cd98f00b204e9800998ecf8427e-2"),
    }


def case(name, outcome, sealed, *, seq=0, recording=RECORDING, opened=None):
    found = {
        "name": name,
        "outcome": outcome,
        "data_key": KEY.material.hex(),
        "recording": recording,
        "seq": seq,
        "sealed": bytes(sealed).hex(),
    }
    if opened is None:
        return found
    return found | {"note": [item.hex() if isinstance(item, bytes) else item for item in note_value(opened)]}


def cases():
    sound = seal_note(KEY, RECORDING, 3, kinds()["a gap"], nonce=NONCE)
    return [
        *(
            case(name, "ok", seal_note(KEY, RECORDING, seq, note, nonce=NONCE), seq=seq, opened=note)
            for seq, (name, note) in enumerate(kinds().items())
        ),
        case("another number", "tampered", sound, seq=4),
        case("another recording", "tampered", sound, seq=3, recording="rec_" + "0" * 32),
        case("nonce changed", "tampered", flipped(sound, 1), seq=3),
        case("no room for a tag", "truncated", sound[:28], seq=3),
        case("version 2", "format", b"\x02" + sound[1:], seq=3),
        case("nothing", "format", b"", seq=3),
    ]
