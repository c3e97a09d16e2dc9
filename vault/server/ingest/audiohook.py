"""Genesys AudioHook: one signed WebSocket for each session; its dialect is known before the first message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from vault.access.permissions import Act
from vault.errors import Forbidden, Unauthenticated, Unavailable, VaultError
from vault.ids import TokenId
from vault.model import Principal
from vault.protocol.live.audiohook import AudioHook, Nonces, parse_signature, verify
from vault.protocol.live.events import Say
from vault.server.context import VAULT, came_from, claims, path_tenant, possible_id, principal
from vault.server.ingest import websocket
from vault.server.operation import Answer, Operations
from vault.services.vault import Vault

NONCES = web.AppKey("nonces", Nonces)

_SIGNED: Final = ("audiohook-session-id", "audiohook-organization-id", "audiohook-correlation-id", "x-api-key")
_REQUIRED: Final = frozenset({"@request-target", "@authority", *_SIGNED})
_DEFAULT_PORTS: Final = (":443", ":80")
_NO_SECRET: Final = bytes(32)

OPERATIONS: Final = Operations("ingest")


@OPERATIONS.raw(
    "GET /v1/ingest/{tenant}/audiohook",
    Act.INGEST,
    {101: Answer(text="Open a session; `closed` comes once everything is durable.")},
    headers=(
        *("X-API-KEY", "Audiohook-Session-Id", "Audiohook-Organization-Id", "Audiohook-Correlation-Id"),
        *("Signature-Input", "Signature"),
    ),
    problems=(422,),
)
async def stream_audio_hook(request: web.Request) -> web.StreamResponse:
    """Stream a live call as Genesys AudioHook does.

    A refusal before the upgrade is an HTTP answer, a later one a `disconnect` message.
    """
    vault = request.app[VAULT]
    actor = await _recorder(request, vault)
    tenant = path_tenant(request)
    came_from(request, actor)
    await vault.access.authorise(actor, Act.INGEST, tenant=tenant, target=tenant)
    machine = AudioHook(
        session=request.headers.get("Audiohook-Session-Id", ""),
        organization=request.headers.get("Audiohook-Organization-Id", ""),
    )

    def refusal(error: VaultError, begun: bool) -> Sequence[Say]:  # noqa: FBT001  # websocket.record's shape
        if isinstance(error, Unavailable) and vault.ingest.draining:
            return machine.refused("completed", "the vault is shutting down; what was received is durable", begun=begun)
        unauthorized = isinstance(error, Unauthenticated | Forbidden)
        return machine.refused("unauthorized" if unauthorized else "error", error.message, begun=begun)

    return await websocket.record(request, machine=machine, actor=actor, refusal=refusal)


async def _recorder(request: web.Request, vault: Vault) -> Principal:
    """Return the session's recorder: by its token's id in X-API-KEY with a signature, or by a whole token."""
    began = vault.begun.here
    key = request.headers.get("X-API-KEY")
    if key is None:
        return await principal(request, began=began)
    if not key.isascii():
        raise Unauthenticated("this needs a token", hint="send the recorder token's id, or the token, as X-API-KEY")
    claims(request, key)
    whole = await vault.access.authenticate(key, began=began) if possible_id(key, "tok") is None else None
    if whole is not None and not {"Signature", "Signature-Input"} & request.headers.keys():
        return whole
    signature = parse_signature(request.headers.get("Signature-Input", ""), request.headers.get("Signature", ""))
    token = TokenId(key) if whole is None else whole.token_id
    secret = await vault.access.shared_secret(token, began=began)
    now = vault.clock.now().timestamp()
    # An unknown token takes the same work and is always refused, even if the signature fits the empty secret.
    verify(signature, key=secret or _NO_SECRET, values=_components(request), required=_REQUIRED, now=now)
    if not secret or signature.keyid != key:
        raise Unauthenticated("the signature or the token is unknown, wrong, too old or was used before")
    request.app[NONCES].spend(signature, now=now)
    return whole or await vault.access.acting(token, began=began)


def _components(request: web.Request) -> Mapping[str, str]:
    """Return the parts of the request that a signature may cover, by their RFC 9421 names."""
    authority = request.headers.get("Host", "").strip().lower()
    for port in _DEFAULT_PORTS:
        authority = authority.removesuffix(port)
    values = {"@request-target": request.raw_path, "@authority": authority}
    for name in _SIGNED:
        if given := request.headers.getall(name, []):
            values[name] = ", ".join(each.strip() for each in given)
    return values
