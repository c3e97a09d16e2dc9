"""Sessions of AudioHook with a vault that is being served."""

import base64
import secrets
import time
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from tests.helpers.app import TENANTS
from tests.helpers.audiohook_client import SESSION, Client, headers
from tests.helpers.httpsignatures import signed
from vault.model import Role

TENANT = TENANTS[0]


TARGET = f"/v1/ingest/{TENANT}/audiohook"


def secret_of(token):
    return token.removeprefix("cv_").partition("_")[2].encode()


def signature(app, key, secret, *, session=SESSION, target=TARGET, created=None, nonce=None):
    sent = headers(key, session=session)
    values = {"@request-target": target, "@authority": app.url.partition("//")[2]}
    values |= {name.lower(): value for name, value in sent.items()}
    created = int(time.time()) if created is None else created
    names = " ".join(f'"{name}"' for name in values)
    nonce = nonce or base64.b64encode(secrets.token_bytes(18)).decode()
    given = f'sig1=({names});keyid="{key}";nonce="{nonce}";alg="hmac-sha256";created={created};expires={created + 30}'
    return {**sent, "Signature-Input": given, "Signature": signed(given, key=secret, values=values)}


@asynccontextmanager
async def session(app, sent, *, tenant=TENANT):
    url = app.url.replace("http", "ws") + f"/v1/ingest/{tenant}/audiohook"
    async with connect(url, additional_headers=sent, compression=None) as socket:
        yield socket


@asynccontextmanager
async def opened(app, *, name=SESSION, **changes):
    client = Client(name)
    async with session(app, headers(app.token(Role.RECORDER), session=name)) as socket:
        await socket.send(client.open(**changes))
        kind, _ = client.heard(await socket.recv())
        assert kind == "opened"
        yield client, socket
