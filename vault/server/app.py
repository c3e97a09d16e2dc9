"""The server: the application's routes, the envelope around every request, and an orderly shutdown."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from aiohttp import web

from vault import errors
from vault.config import Config, ServerSettings
from vault.protocol.live.audiohook import Nonces
from vault.server.connections.connections import Connection, bind, connections_of
from vault.server.connections.http_protocol import BODIES, CALLS, SERVER_NAME, HttpLine, Intake, watch
from vault.server.connections.tls import Certified, Reread, Worker, load_chain, server_context
from vault.server.context import CONFIG, INGEST, VAULT, WORKER, end_work
from vault.server.idempotency import once
from vault.server.ingest import resumable, tcp
from vault.server.ingest.audiohook import NONCES
from vault.server.operation import routes
from vault.server.origins import share_with_site, sites
from vault.server.problems import plain_problem, problem
from vault.server.refusal_log import REFUSALS, Refusals
from vault.server.refused_request import failing, tell
from vault.server.routes import OPERATIONS
from vault.services.vault import Vault
from vault.telemetry import request_id

_DRAIN_STEP_SECONDS = 0.1
_STORE_DRAIN_SECONDS = 10.0
_YEAR_SECONDS = 365 * 24 * 3600

logger = logging.getLogger(__name__)


@web.middleware
async def envelope(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give the request an id, and turn every failure into a problem document."""
    identifier = secrets.token_hex(8)
    token = request_id.set(identifier)
    try:
        try:
            response = await handler(request)
        except (errors.VaultError, web.HTTPException, Exception) as error:  # noqa: BLE001  # the outermost handler
            response = _failure(request, error, identifier)
        tell(request, status=response.status)
        if not response.prepared:
            response.headers["Request-Id"] = identifier
        return response
    finally:
        end_work(request)
        request_id.reset(token)


def _failure(request: web.Request, error: Exception, identifier: str) -> web.StreamResponse:
    unread = request.can_read_body and not request.content.at_eof()
    match error:
        case web.HTTPException(status=404):
            failure: errors.VaultError = errors.NotFound(
                "there is nothing at this address", hint="/v1/openapi.json has every address"
            )
        case web.HTTPException():
            tell(request, status=error.status, http=error.reason)
            return plain_problem(error, request_id=identifier, close=unread)
        case errors.VaultError():
            failure = error
        case ConnectionError() | web.RequestPayloadError():
            # The client went away and does not read this answer; the log should not show that as a defect.
            failure = errors.Invalid("the request ended before its body was complete")
        case _:
            logger.error("request failed unexpectedly", exc_info=error)
            failure = errors.Unexpected(
                "the server failed unexpectedly; what was acknowledged before is safe",
                hint="give the request id to the operator, who finds the failure in the log",
            )
    if isinstance(failure, errors.IntegrityError):
        logger.error("integrity", extra={"fields": {"detail": failure.message}})
    failing(request, failure)
    ingest = request.path.startswith(INGEST)
    if ingest:
        request.app[VAULT].metrics.ingest_refused.labels(failure.code).inc()
    return problem(failure, request_id=identifier, close=unread, basic=ingest)


async def _said_of_the_server(request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers of every answer: request id, server without a version, and over TLS the order to use TLS only."""
    response.headers["Server"] = SERVER_NAME
    if (identifier := request_id.get()) is not None:
        response.headers["Request-Id"] = identifier
    if request.secure:
        response.headers["Strict-Transport-Security"] = f"max-age={_YEAR_SECONDS}"


def build_app(vault: Vault, config: Config) -> web.Application:
    """Return the application over an open vault."""
    app = web.Application(middlewares=[envelope, sites, once], client_max_size=1 << 20)
    app.on_response_prepare.append(_said_of_the_server)
    app.on_response_prepare.append(share_with_site)
    app[VAULT] = vault
    app[CONFIG] = config
    app[REFUSALS] = refusals = Refusals()
    app.on_cleanup.append(refusals.ended)
    for way in (CALLS, BODIES):
        app[way] = Intake(bound=config.journal.max_undurable_bytes, undurable=lambda: vault.journal.undurable)
    app[NONCES] = Nonces()
    resumable.prepare(app)
    app.add_routes(routes(OPERATIONS))
    return app


def tls_context(config: Config) -> ssl.SSLContext | None:
    """Return the TLS settings, or None for the plain HTTP that the configuration permits."""
    if config.tls_paths is None:
        return None
    context = server_context()
    try:
        load_chain(context, *config.tls_paths)
    except (OSError, ssl.SSLError) as error:
        raise errors.ConfigError(
            f"server.tls_cert: the certificate or key cannot be used: {errors.reason(error)}"
        ) from error
    return context


async def serve(
    vault: Vault,
    config: Config,
    *,
    stop: asyncio.Event,
    started: Callable[[str], None],
    worker: Worker | None = None,
    listener: socket.socket | None = None,
    reread: Reread | None = None,
) -> None:
    """Listen until `stop` is set, then drain: refuse new calls, let open ones end, and close the rest as truncated.

    With `listener`, accept on that socket, which siblings of `worker` share. With `reread`, read certificates and the
    log level again on its request.
    """
    settings = config.server
    certified = [Certified("server", config, tls_context)]
    app = build_app(vault, config)
    if worker is not None:
        app[WORKER] = worker
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    server = runner.server
    assert server is not None
    kept = settings.idle_timeout.total_seconds()

    def line(connection: Connection) -> HttpLine:
        return HttpLine(
            connection, server, app[REFUSALS], access_log=None, keepalive_timeout=kept, auto_decompress=False
        )

    watch(vault.journal, app[CALLS], app[BODIES])
    vault.metrics.undurable_bytes.set_function(lambda: app[BODIES].bytes + vault.parts.windows.bytes)
    connections = connections_of(settings, vault.metrics, clock=vault.clock)
    try:
        try:
            sockets = bind(settings.host, settings.port) if listener is None else [listener]
        except OSError as error:
            raise errors.not_listening("server.port", f"{settings.host}:{settings.port}", error) from error
        port = sockets[0].getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        async with connections.watched(), AsyncExitStack() as listening:
            for each in sockets:
                listening.enter_context(connections.listening(each, line, tls=certified[0]))
            await listening.enter_async_context(
                tcp.listening(
                    vault,
                    config,
                    connections,
                    app[CALLS],
                    refusals=app[REFUSALS],
                    certified=certified,
                    shared=worker is not None,
                )
            )
            if reread is not None:
                await listening.enter_async_context(reread.followed(config, certified))
            started(f"{'https' if certified[0].context else 'http'}://{host}:{port}")
            await stop.wait()
            await _drain(vault, settings)
    finally:
        await runner.cleanup()


async def _drain(vault: Vault, settings: ServerSettings) -> None:
    ingest = vault.ingest
    ingest.drain()
    await _until(lambda: not ingest.uploading, settings.drain_grace.total_seconds())
    if ingest.uploading:
        await ingest.truncate_all("server_shutdown", uploading=True)
    # Give the object store a moment. Bytes that it does not accept stay in the journal for the next start.
    await _until(lambda: not ingest.ending or vault.storer.stalled, _STORE_DRAIN_SECONDS)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until the condition holds or the time is up."""
    for _ in range(int(seconds / _DRAIN_STEP_SECONDS)):
        if condition():
            return
        await asyncio.sleep(_DRAIN_STEP_SECONDS)
