"""Liveness, readiness and metrics."""

from __future__ import annotations

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from vault.errors import VaultError
from vault.server.context import VAULT, WORKER
from vault.services.status import refresh_gauges


async def healthz(request: web.Request) -> web.Response:
    """GET /healthz: the process answers, and says whether its vault is a trial one."""
    return web.json_response({"status": "ok", "trial": request.app[VAULT].keyring.trial})


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: whether new recordings would be accepted, and if not, why."""
    vault = request.app[VAULT]
    checks = {"journal": vault.journal.admits(), "draining": not vault.ingest.draining}
    try:
        await vault.catalog.check_schema()
        checks["catalog"] = True
    except VaultError:
        checks["catalog"] = False
    ready = all(checks.values())
    body = {
        "status": "ready" if ready else "not ready",
        "checks": {name: "ok" if ok else "failing" for name, ok in checks.items()},
        "object_store": "down, the journal absorbs" if vault.storer.store_down else "ok",
    }
    return web.json_response(body, status=200 if ready else 503)


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics in the Prometheus text format; with several workers, those of each under its label."""
    vault = request.app[VAULT]
    worker = request.app.get(WORKER)
    if worker is None:
        await refresh_gauges(vault)
        body = generate_latest(vault.metrics.registry)
    else:
        body = await worker.metrics()
    response = web.Response(body=body)
    response.headers["Content-Type"] = CONTENT_TYPE_LATEST
    return response
