"""Flags over HTTP: by people for any recording, by a recorder for the call it is sending."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from vault import model
from vault.access.permissions import Act
from vault.protocol.webhook import FlagCategory
from vault.server.api.recordings import recording_of
from vault.server.context import Admitted, path_call_key, reply
from vault.server.operation import Operations, answer
from vault.server.schemas import Body, HoldRef, Moment, RecordingRef, Words, render
from vault.services.holds import flags


class FlagCall(Body):
    """POST /v1/ingest/{tenant}/{call_key}/flag."""

    category: FlagCategory


class FlagRecording(FlagCall):
    """POST /v1/recordings/{id}/flag. The reason is stored with the hold; no alert contains it."""

    matter: Words | None = None
    reason: Annotated[str, Field(min_length=1, max_length=400)] | None = None


class Flagged(TypedDict):
    """The result of a flag."""

    recording_id: RecordingRef
    hold_id: HoldRef
    flagged_at: Moment
    review_at: Moment
    live: bool
    alert: Literal["pending", "acknowledged", "none_configured"]


OPERATIONS: Final = Operations("holds")
_ANSWERS: Final = {
    **answer("The recording is held: the keyring has the pins. The alert is being sent.", Flagged, status=201),
    **answer("The recording was flagged under this matter before, and is held.", Flagged),
}


@OPERATIONS("POST /v1/recordings/{recording}/flag", Act.FLAG, _ANSWERS, of=recording_of, body=FlagRecording)
async def flag_recording(request: Admitted, row: model.Recording, wanted: FlagRecording) -> web.Response:
    """Flag a recording, also during its call: it is held at once and the safeguarding lead is alerted."""
    flagged = await request.vault.flags.flag(
        row, category=wanted.category, matter=wanted.matter, reason=wanted.reason, actor=request.actor
    )
    return _answer(flagged)


@OPERATIONS(
    "POST /v1/ingest/{tenant}/{call_key}/flag", Act.FLAG_LIVE, _ANSWERS, tag="ingest", body=FlagCall, problems=(409,)
)
async def flag_call(request: Admitted, wanted: FlagCall) -> web.Response:
    """Flag a call that is being sent, or that ended within the hour."""
    call_key, category = path_call_key(request.http), wanted.category
    return _answer(
        await request.vault.flags.flag_call(request.tenant, call_key, category=category, actor=request.actor)
    )


def _answer(flagged: flags.Flagged) -> web.Response:
    return reply(render_flagged(flagged), status=200 if flagged.repeated else 201)


def render_flagged(flagged: flags.Flagged) -> Flagged:
    """Return the result of a flag for display."""
    told_at = None if flagged.alert is None else flagged.alert.delivered_at
    return render(
        Flagged,
        flagged,
        recording_id=flagged.recording.id,
        hold_id=flagged.hold.id,
        flagged_at=flagged.hold.created_at,
        review_at=flagged.hold.review_at,
        alert="none_configured" if flagged.alert is None else "acknowledged" if told_at else "pending",
    )
