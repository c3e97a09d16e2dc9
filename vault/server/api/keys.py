"""The keyring over HTTP: its state, its verification and its rotation. No answer has anything secret."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from vault.access.permissions import Act
from vault.model import Assurance
from vault.server.context import Admitted
from vault.server.operation import Operations, answer
from vault.server.schemas import Count, Moment, render

OPERATIONS: Final = Operations("keys")


class _Replica(TypedDict):
    name: str
    ok: bool
    detail: str | None


class Keyring(TypedDict):
    """The state of the keyring, without anything secret."""

    epoch: Count
    revision: Count
    fence: Count
    generation: Count
    provider: str
    assurance: Assurance
    lease_seconds: Annotated[float, WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
    last_sweep_at: Moment | None
    trial: bool
    tenants: Count
    cohorts: Count
    pins: Count
    write_quorum: Count
    replicas: list[_Replica]


class _Finding(TypedDict):
    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    hint: str | None


class Findings(TypedDict):
    """The findings of a verification of the keyring."""

    findings: list[_Finding]


class Rotation(TypedDict):
    """The result of a rotation."""

    epoch_destroyed: Count
    epoch_live: Count
    provider: str
    assurance: Assurance
    replicas: Count
    unrecoverable_at: Moment
    caches_clear_at: Moment
    generation: Count
    trees_dropped: Count
    calls_under_way: Count


@OPERATIONS("GET /v1/keys", Act.KEYS_READ, answer("The state of the keyring.", Keyring))
async def keyring_status(request: Admitted) -> Keyring:
    """Show the keyring's epoch, its replicas and its root-key provider."""
    status = await request.vault.keys.status()
    replicas = [render(_Replica, each) for each in status.replicas]
    return render(Keyring, status, lease_seconds=status.lease.total_seconds(), replicas=replicas)


@OPERATIONS("GET /v1/keys/findings", Act.KEYS_READ, answer("The findings; an `error` needs an operator.", Findings))
async def verify_keyring(request: Admitted) -> Findings:
    """Open each replica and compare their trees; list the root versions."""
    return Findings(findings=[render(_Finding, each) for each in await request.vault.keys.verify()])


@OPERATIONS(
    "POST /v1/keys/rotate", Act.KEYS_ROTATE, answer("From now on no older copy opens a call that begins.", Rotation)
)
async def rotate_keyring(request: Admitted) -> Rotation:
    """Replace the root version and every tree for coming calls; every recording stays readable."""
    done = await request.vault.keys.rotate(actor=request.actor)
    return render(
        Rotation,
        done.receipt,
        generation=done.generation,
        trees_dropped=done.dropped,
        calls_under_way=done.under_way,
    )
