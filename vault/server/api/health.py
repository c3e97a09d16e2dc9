"""Liveness, readiness and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from vault.server.context import VAULT, WORKER, reply
from vault.server.operation import TEXT, Answer, Operations, answer
from vault.services.health.status import CHECKS

OPERATIONS: Final = Operations("server")


class Liveness(TypedDict):
    """The process answers."""

    status: Annotated[Literal["ok"], WithJsonSchema({"const": "ok"})]
    vault: Annotated[str, WithJsonSchema({"type": "string", "pattern": "^vlt_[0-9a-f]{32}$"})]
    trial: bool


class _Reason(TypedDict):
    check: Annotated[str, WithJsonSchema({"type": "string", "enum": list(CHECKS)})]
    detail: str
    hint: str


_WHAT_TO_DO: Final[Mapping[str, str]] = {
    "draining": "wait for its next start; another node takes recordings meanwhile",
    "journal": "free space, or give the journal a larger disk of its own",
    "keyring": "mount the replicas that do not answer: callvault keys verify names them",
    "root_provider": "see that the root-key provider answers: callvault doctor asks it",
    "catalog": "see that the database answers and takes writes: callvault doctor asks it",
    "objects": "mount the disk of the object store, or put its directory back",
}
"""The remedy for a failed check whose error has none."""


class Readiness(TypedDict):
    """Whether new recordings are accepted, and if not, why."""

    status: Literal["ready", "not ready"]
    checks: dict[str, Literal["ok", "failing"]]
    reasons: list[_Reason]
    object_store: str
    age_seconds: Annotated[float, Field(description="How long ago the catalog and the disk of the objects were asked.")]


@OPERATIONS.raw("GET /healthz", None, answer("It does.", Liveness))
async def healthz(request: web.Request) -> web.Response:
    """Show that the process answers, which vault it serves, and whether that is a trial vault."""
    keyring = request.app[VAULT].keyring
    return reply(Liveness(status="ok", vault=f"vlt_{keyring.keyring_id.hex()}", trial=keyring.trial))


@OPERATIONS.raw("GET /readyz", None, answer("They are.", Readiness) | answer("They are not.", Readiness, status=503))
async def readyz(request: web.Request) -> web.Response:
    """Tell whether new recordings are accepted.

    If not, the answer has the reasons. It comes at once: the catalog and the disk of the objects are checked every
    second, and a check that hangs is reported within three seconds.
    """
    vault = request.app[VAULT]
    found, age = await vault.status.readiness()
    failing = {name: error for name, error in found.items() if error is not None}
    ready = Readiness(
        status="not ready" if failing else "ready",
        checks={name: "failing" if name in failing else "ok" for name in found},
        reasons=[
            _Reason(check=name, detail=error.message, hint=error.hint or _WHAT_TO_DO[name])
            for name, error in failing.items()
        ],
        object_store="down, the journal absorbs" if vault.storer.store_down or "objects" in failing else "ok",
        age_seconds=round(age, 3),
    )
    return reply(ready, status=503 if failing else 200)


@OPERATIONS.raw("GET /metrics", None, {200: Answer(text="The metrics.", content={"text/plain": TEXT})})
async def metrics(request: web.Request) -> web.Response:
    """Metrics in the Prometheus text format.

    With several workers, each series has the label of its worker.
    """
    vault = request.app[VAULT]
    worker = request.app.get(WORKER)
    if worker is None:
        await vault.status.gauges()
        body = vault.metrics.exposition.text()
    else:
        body = await worker.metrics()
    response = web.Response(body=body)
    response.headers["Content-Type"] = CONTENT_TYPE_LATEST
    return response
