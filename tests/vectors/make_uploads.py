"""Sealed secrets of recorders' tokens, and parts of uploads in the spool."""

import hashlib

from tests.vectors.encoding import seed
from tests.vectors.make_chunked import flipped
from tests.vectors.make_segment import KEY, RECORDING
from vault.crypto import chunked
from vault.crypto.values import seal_secret
from vault.services.uploads.spooling import PartKey

NAME = "uploads"
ABOUT = (
    "`secret`: a recorder's secret sealed under the backup key (`data_key`), bound to `token`. "
    "`part`: a spooled part's message under the recording's data key, bound to `recording` and `number`."
)

TOKEN = "tok_018f3a5c7d2e7b3a9c4d5e6f70819203"
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I"
BODY = bytes(range(256)) * 70


def secret(name, outcome, sealed, *, token=TOKEN):
    found = {"kind": "secret", "name": name, "outcome": outcome, "data_key": KEY.material.hex(), "token": token}
    return found | {"sealed": sealed.hex()} | ({"secret": SECRET} if outcome == "ok" else {})


def part(name, outcome, message, *, number=3):
    found = {"kind": "part", "name": name, "outcome": outcome, "data_key": KEY.material.hex(), "recording": RECORDING}
    found |= {"number": number, "message": bytes(message).hex()}
    if outcome == "ok":
        found |= {"length": len(BODY), "md5": hashlib.md5(BODY).hexdigest()}
    return found


def cases():
    sealed = seal_secret(KEY, TOKEN, SECRET, nonce=seed("secret nonce", 12))
    place = PartKey(key=KEY, recording=RECORDING, number=3)
    body = BODY + hashlib.md5(BODY).digest()
    message = bytes(chunked.seal(place.input_key, seed("part salt", 24), place.context, body))
    return [
        secret("a recorder's secret", "ok", sealed),
        secret("another token", "tampered", sealed, token="tok_" + "0" * 32),
        secret("changed", "tampered", bytes(flipped(sealed, 20))),
        secret("cut", "tampered", sealed[:13]),
        secret("version 2", "format", b"\x02" + sealed[1:]),
        part("a part", "ok", message),
        part("another number", "tampered", message, number=4),
        part("changed at its end", "tampered", flipped(message, len(message) - 1)),
        part("without its end", "tampered", message[:-1]),
        part("shorter than any", "truncated", message[:60]),
    ]
