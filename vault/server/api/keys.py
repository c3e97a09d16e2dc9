"""The keyring over HTTP: its state, the proof that it is whole, and rotation. Nothing secret leaves."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from vault.access.permissions import Act
from vault.model import Finding
from vault.ports.keys import KeyringStatus
from vault.server.context import VAULT, principal
from vault.server.operation import Answer, Operation
from vault.server.shapes import reference
from vault.server.views import moment
from vault.services.keys import Rotation


def _answer(text: str, schema: str) -> Answer:
    return Answer(text=text, content={"application/json": reference(schema)})


OPERATIONS: Final = (
    Operation(
        method="get",
        path="/v1/keys",
        name="keyringStatus",
        tag="keys",
        summary="Show the keyring's epoch, its replicas and its root-key provider",
        act=Act.KEYS_READ,
        answers={200: _answer("Nothing of it is secret.", "Keyring")},
    ),
    Operation(
        method="get",
        path="/v1/keys/findings",
        name="verifyKeyring",
        tag="keys",
        summary="Open every replica by itself and compare the trees; list the root versions",
        act=Act.KEYS_READ,
        answers={200: _answer("What was found; an `error` needs somebody.", "Findings")},
    ),
    Operation(
        method="post",
        path="/v1/keys/rotate",
        name="rotateKeyring",
        tag="keys",
        summary="Replace the root version and every tree of calls to come; every recording stays readable",
        act=Act.KEYS_ROTATE,
        answers={200: _answer("No copy from before opens a call that begins now.", "Rotation")},
    ),
)


async def status(request: web.Request) -> web.Response:
    """GET /v1/keys."""
    vault = request.app[VAULT]
    await vault.access.authorise(await principal(request), Act.KEYS_READ)
    return web.json_response(_status(await vault.keys.status()))


async def findings(request: web.Request) -> web.Response:
    """GET /v1/keys/findings."""
    vault = request.app[VAULT]
    await vault.access.authorise(await principal(request), Act.KEYS_READ)
    return web.json_response({"findings": [_finding(item) for item in await vault.keys.verify()]})


async def rotate(request: web.Request) -> web.Response:
    """POST /v1/keys/rotate."""
    vault = request.app[VAULT]
    actor = await principal(request)
    await vault.access.authorise(actor, Act.KEYS_ROTATE)
    return web.json_response(_rotation(await vault.keys.rotate(actor=actor)))


def _status(value: KeyringStatus) -> dict[str, Any]:
    return {
        "epoch": value.epoch,
        "revision": value.revision,
        "fence": value.fence,
        "generation": value.generation,
        "provider": value.provider,
        "assurance": value.assurance.value,
        "lease_seconds": value.lease.total_seconds(),
        "last_sweep_at": moment(value.last_sweep_at),
        "trial": value.trial,
        "tenants": value.tenants,
        "cohorts": value.cohorts,
        "pins": value.pins,
        "write_quorum": value.write_quorum,
        "replicas": [{"name": item.name, "ok": item.ok, "detail": item.detail} for item in value.replicas],
    }


def _finding(value: Finding) -> dict[str, Any]:
    return {"level": value.level, "subject": value.subject, "message": value.message, "hint": value.hint}


def _rotation(done: Rotation) -> dict[str, Any]:
    value = done.receipt
    return {
        "epoch_destroyed": value.epoch_destroyed,
        "epoch_live": value.epoch_live,
        "provider": value.provider,
        "assurance": value.assurance.value,
        "replicas": value.replicas,
        "unrecoverable_at": moment(value.unrecoverable_at),
        "caches_clear_at": moment(value.caches_clear_at),
        "generation": done.generation,
        "trees_dropped": done.dropped,
        "calls_under_way": done.under_way,
    }
