"""What a real AudioHook client says, and a client that says it.

Captured from the client of Genesys' reference implementation (purecloudlabs/audiohook-reference-implementation, commit
2871b01, `client/src/index.ts --max-stream-duration 3`): its handshake with the signature it made, and its messages. The
audio is its 1 kHz tone. `serverseq` is that of a server which only answers; the pause is the one it makes when asked.
"""

import json

SECRET = b"MySuperSecretKeyTellNo-1!@2#3$45"
CREATED = 1795575715
TARGET = "/v1/ingest/northfield/audiohook"
SESSION = "5f22eeba-cc5d-4941-acd1-44669c026f01"
ORGANIZATION = "e3836db1-6561-419c-b3f4-f6555c1878dd"
CONVERSATION = "6325ac04-15db-49b9-b0d1-f2fb6baa7224"
PARTICIPANT = "e8db4941-8417-46ff-8101-c54b33cdbcae"
CALL_KEY = f"{CONVERSATION}:{PARTICIPANT}"
PROBE = "00000000-0000-0000-0000-000000000000"
KEY = "tok_0193a5b2c3d47e8f90a1b2c3d4e5f607"
SIGNATURE_INPUT = (
    'sig1=("@request-target" "@authority" "audiohook-organization-id" "audiohook-session-id" '
    f'"audiohook-correlation-id" "x-api-key");keyid="{KEY}";nonce="3agOM5G1bG7k342QZCg09mqM";alg="hmac-sha256";'
    "created=1795575715;expires=1795575745"
)
SIGNATURE = "sig1=:TmUFqoCzniNh/Pr/bD4etCy1csc7s5mbNL0ApJDIB0s=:"
COMPONENTS = {
    "@request-target": TARGET,
    "@authority": "127.0.0.1:9555",
    "audiohook-organization-id": ORGANIZATION,
    "audiohook-session-id": SESSION,
    "audiohook-correlation-id": "6c6dbc6a-017a-45a2-820e-73d22534eca5",
    "x-api-key": KEY,
}
TONE = bytes.fromhex("ffff0d0d06060d0dffff8d8d86868d8d") * 200
"""200 ms of PCMU in two channels."""

_BOTH = ["external", "internal"]
MEDIA = [
    {"type": "audio", "format": "PCMU", "channels": channels, "rate": 8000}
    for channels in (_BOTH, _BOTH[:1], _BOTH[1:])
]


def _said(kind, seq, serverseq, position, **parameters):
    document = {"version": "2", "type": kind, "id": SESSION, "seq": seq, "serverseq": serverseq, "position": position}
    return json.dumps({**document, "parameters": parameters}, separators=(",", ":"))


OPEN = {
    "organizationId": ORGANIZATION,
    "conversationId": CONVERSATION,
    "participant": {"id": PARTICIPANT, "ani": "+1-555-555-1234", "aniName": "John Doe", "dnis": "+1-800-555-6789"},
    "media": MEDIA,
}
GOLDEN = (
    _said("open", 1, 0, "PT0S", **OPEN),
    TONE,
    TONE,
    TONE,
    TONE,
    _said("paused", 2, 1, "PT0.8S"),
    _said("ping", 3, 1, "PT1S"),
    _said("ping", 4, 2, "PT1S", rtt="PT0.033006774S"),
    _said("resumed", 5, 3, "PT1.4S", start="PT0.8S", discarded="PT0.6S"),
    TONE,
    TONE,
    _said("close", 6, 3, "PT3S", reason="end"),
)


class Client:
    """Builds a client's messages in sequence, and checks the server's."""

    def __init__(self, session=SESSION):
        self.session = session
        self.seq = 0
        self.serverseq = 0

    def say(self, kind, position="PT0S", **parameters):
        self.seq += 1
        document = {"version": "2", "type": kind, "id": self.session, "seq": self.seq, "serverseq": self.serverseq}
        return json.dumps({**document, "position": position, "parameters": parameters})

    def open(self, **changes):
        return self.say("open", **{**OPEN, **changes})

    def heard(self, text):
        """Return the type and parameters of the server's next message, which must be in order."""
        message = json.loads(text)
        assert message["version"] == "2"
        assert message["id"] == self.session
        assert message["seq"] == self.serverseq + 1
        assert 0 <= message["clientseq"] <= self.seq
        self.serverseq = message["seq"]
        return message["type"], message["parameters"]


def headers(key, *, session=SESSION, organization=ORGANIZATION):
    return {
        "Audiohook-Organization-Id": organization,
        "Audiohook-Session-Id": session,
        "Audiohook-Correlation-Id": COMPONENTS["audiohook-correlation-id"],
        "X-API-KEY": key,
    }
