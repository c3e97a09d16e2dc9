"""Requests with an Idempotency-Key take effect once, however often they are sent.

This serves every operation outside ingest. It claims the key and stores the answer. For a failed request it also tells
the client whether the request may have taken effect.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from vault.errors import AnswerLost, OutcomeUnknown, Refused, Unavailable, VaultError
from vault.ids import HoldId, TenantId
from vault.ports.erasures import ErasureId
from vault.ports.repeats import Effects, Keyed, recording_effects
from vault.server.api.erasures import render_erasure
from vault.server.api.holds import hold_answer
from vault.server.api.tenants import tenant_answer
from vault.server.context import INGEST, VAULT, Handler, principal, whole_body
from vault.server.operation import Operation
from vault.server.problems import problem
from vault.server.refused_request import failing
from vault.server.routes import OPERATIONS
from vault.services.repeats import checked_key
from vault.telemetry import request_id

HEADER: Final = "Idempotency-Key"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_KEPT_HEADERS: Final = ("Content-Type", "Location", "Cache-Control")
_MAX_KEPT: Final = 1 << 20
_HINT: Final = "repeat it with the same Idempotency-Key, or look before doing it again"
_AGAIN: Final = ("/v1/sweeps", "/v1/keys/rotate")
"""Operations that may be carried out twice: a repetition finds no work left, or does it again."""
_KEYED: Final[Mapping[tuple[str, str], Operation]] = {
    (each.method.upper(), each.path): each for each in OPERATIONS if each.keyed
}

logger = logging.getLogger(__name__)


@web.middleware
async def once(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Carry out a request; a repetition under the same key gets the first answer instead."""
    place = _place(request)
    if place is None or place[0] in _SAFE or place[1].startswith(INGEST) or not place[1].startswith("/v1/"):
        return await handler(request)
    told = request.headers.get(HEADER)
    if told is None or place not in _KEYED:
        return await _honestly(request, handler, Effects())
    # First, so that a refused sender learns nothing from its key or its body, and has nothing written for it.
    actor = (await _KEYED[place].let_in(request)).actor
    key = checked_key(told)
    repeats = request.app[VAULT].repeats
    asked = f"{request.method} {request.path_qs}\n".encode() + await whole_body(request)
    keyed, ours = await repeats.claim(actor.token_id, key, asked)
    if not ours:
        return _again(repeats.answer(keyed, key), status=keyed.status)
    present = Effects(keyed=keyed, durable=keyed.effect)
    try:
        async with repeats.alive(keyed):
            response = await _honestly(request, handler, present)
    except Refused as refusal:
        if not present.durable:
            await repeats.leave(keyed)
            raise
        failing(request, refusal)
        response = problem(refusal, request_id=request_id.get())
    except BaseException:
        await repeats.leave(keyed)
        raise
    if isinstance(response, web.Response) and isinstance(response.body, bytes) and len(response.body) <= _MAX_KEPT:
        await repeats.keep(keyed, key, status=response.status, answer=_kept(response))
    else:
        await repeats.leave(keyed)
    return response


def _place(request: web.Request) -> tuple[str, str] | None:
    resource = request.match_info.route.resource
    return None if resource is None else (request.method, resource.canonical)


async def _honestly(request: web.Request, handler: Handler, present: Effects) -> web.StreamResponse:
    """Carry out a request; if it fails after an effect may be durable, raise OutcomeUnknown instead of its error."""
    try:
        with recording_effects(present):
            if present.keyed is not None and present.keyed.effect:
                found = await _found(request, present.keyed)
                if found is not None:
                    return found
            return await handler(request)
    except OutcomeUnknown as error:
        error.hint = _HINT
        raise
    except Unavailable as error:
        if not present.durable:
            raise
        raise OutcomeUnknown(
            f"{error.message.partition('; nothing')[0]}; the request had begun and may have taken effect",
            hint=_HINT,
            retry_after_seconds=error.retry_after_seconds,
        ) from error
    except VaultError:
        raise
    except Exception as error:
        if not present.durable:
            raise
        logger.exception("request failed unexpectedly")
        raise OutcomeUnknown(
            "the server failed unexpectedly; the request had begun and may have taken effect", hint=_HINT
        ) from error


async def _found(request: web.Request, keyed: Keyed) -> web.StreamResponse | None:
    """Answer for an act that took effect and whose answer is lost; None if it may be done again.

    The effect belongs to the token that owns the key, so it may be shown.
    """
    vault = request.app[VAULT]
    actor = await principal(request)
    place = _place(request)
    assert place is not None
    target = keyed.target or ""
    kind = target.partition("_")[0]
    operation = _KEYED[place]
    if operation.path in _AGAIN or kind == "rec":
        return None
    if kind == "hold":
        hold = await vault.holds.complete(HoldId(target), actor=actor)
        return await operation.answer(request, await hold_answer(vault, hold))
    if kind == "era":
        erasure = await vault.erasures.show(ErasureId(target))
        return await operation.answer(request, render_erasure(erasure))
    if operation.path.startswith("/v1/tenants"):
        tenant = await vault.tenants.one(TenantId(target))
        return await operation.answer(request, await tenant_answer(vault, tenant))
    what = f"look at {target}" if target else "look"
    more = " A token's secret is shown once: revoke it, and issue another." if kind == "tok" else ""
    raise AnswerLost(
        f"the request took effect, and its answer is lost.{more}",
        hint=f"{what} before doing it again, under a new key",
        **({"target": target} if target else {}),
    )


def _kept(response: web.Response) -> bytes:
    assert isinstance(response.body, bytes)
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return json.dumps({"headers": headers, "body": response.body.decode()}).encode()


def _again(kept: bytes, *, status: int | None) -> web.Response:
    document = json.loads(kept)
    return web.Response(
        status=status or 200,
        body=document["body"].encode(),
        headers={**document["headers"], "Idempotency-Replayed": "true"},
    )
