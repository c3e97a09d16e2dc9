"""Liveness, readiness and metrics."""

from __future__ import annotations

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from vault.server.context import VAULT, WORKER


async def healthz(request: web.Request) -> web.Response:
    """GET /healthz: the process answers, and says which vault it serves and whether that is a trial one."""
    keyring = request.app[VAULT].keyring
    return web.json_response({"status": "ok", "vault": f"vlt_{keyring.keyring_id.hex()}", "trial": keyring.trial})


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: whether new recordings would be accepted, and if not, why; answered within a second."""
    vault = request.app[VAULT]
    found = await vault.status.readiness()
    failing = {name: error for name, error in found.items() if error is not None}
    body = {
        "status": "not ready" if failing else "ready",
        "checks": {name: "failing" if name in failing else "ok" for name in found},
        "reasons": [{"check": name, "detail": error.message, "hint": error.hint} for name, error in failing.items()],
        "object_store": "down, the journal absorbs" if vault.storer.store_down or "objects" in failing else "ok",
    }
    return web.json_response(body, status=503 if failing else 200)


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics in the Prometheus text format; with several workers, those of each under its label."""
    vault = request.app[VAULT]
    worker = request.app.get(WORKER)
    if worker is None:
        await vault.status.gauges()
        body = generate_latest(vault.metrics.registry)
    else:
        body = await worker.metrics()
    response = web.Response(body=body)
    response.headers["Content-Type"] = CONTENT_TYPE_LATEST
    return response
