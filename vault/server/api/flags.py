"""Flags over HTTP: by people for any recording, by a recorder for the call it is sending."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from vault.access.permissions import Act
from vault.ids import RecordingId
from vault.server.bodies import FlagCall, FlagRecording
from vault.server.context import VAULT, body, checked_id, path_call_key, path_tenant, possible_id, principal
from vault.server.operation import Operation, json_answer
from vault.server.views import moment
from vault.services.holds.flags import Flagged

_ANSWERS: Final = {
    201: json_answer("It is kept: the keyring has the pins. The alert is on its way.", "Flagged"),
    200: json_answer("It was flagged under this matter before, and is kept.", "Flagged"),
}
_PROBLEMS: Final = (404, 409, 422)

OPERATIONS: Final = (
    Operation(
        method="post",
        path="/v1/recordings/{recording}/flag",
        name="flagRecording",
        tag="holds",
        summary="Flag a recording, also during its call: it is kept at once and the safeguarding lead is told",
        act=Act.FLAG,
        body=FlagRecording,
        answers=_ANSWERS,
        problems=_PROBLEMS,
    ),
    Operation(
        method="post",
        path="/v1/ingest/{tenant}/{call_key}/flag",
        name="flagCall",
        tag="ingest",
        summary="Flag the call that is being sent, or ended within the hour",
        act=Act.FLAG_LIVE,
        body=FlagCall,
        answers=_ANSWERS,
        problems=_PROBLEMS,
    ),
)


def add_routes(app: web.Application) -> None:
    """Route both."""
    app.router.add_post("/v1/recordings/{recording}/flag", recording)
    app.router.add_post("/v1/ingest/{tenant}/{call_key}/flag", call)


async def recording(request: web.Request) -> web.Response:
    """POST /v1/recordings/{id}/flag."""
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.FLAG, target=possible_id(request.match_info["recording"], "rec"))
    identifier = RecordingId(checked_id(request.match_info["recording"], "rec", "recording"))
    row = await vault.access.own(actor, Act.FLAG, vault.catalog.recording, identifier)
    wanted = await body(request, FlagRecording)
    flagged = await vault.flags.flag(
        row, category=wanted.category, matter=wanted.matter, reason=wanted.reason, actor=actor
    )
    return _answer(flagged)


async def call(request: web.Request) -> web.Response:
    """POST /v1/ingest/{tenant}/{call_key}/flag."""
    vault = request.app[VAULT]
    actor = await principal(request)
    tenant = path_tenant(request)
    await vault.access.authorise(actor, Act.FLAG_LIVE, tenant=tenant, target=tenant)
    wanted = await body(request, FlagCall)
    call_key = path_call_key(request)
    return _answer(await vault.flags.flag_call(tenant, call_key, category=wanted.category, actor=actor))


def _answer(flagged: Flagged) -> web.Response:
    return web.json_response(rendered(flagged), status=200 if flagged.repeated else 201)


def rendered(flagged: Flagged) -> dict[str, Any]:
    """Render what a flag led to."""
    if flagged.alert is None:
        alert = "none_configured"
    else:
        alert = "pending" if flagged.alert.delivered_at is None else "acknowledged"
    return {
        "recording_id": flagged.recording.id,
        "hold_id": flagged.hold.id,
        "flagged_at": moment(flagged.hold.created_at),
        "review_at": moment(flagged.hold.review_at),
        "live": flagged.live,
        "alert": alert,
    }
