"""A vault that listens for streams, and connections to it."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager

from tests.helpers.app import TENANTS
from vault.config.file import StreamSettings
from vault.model import Role
from vault.server.connections.connections import connections_of
from vault.server.connections.http_protocol import Intake
from vault.server.ingest import tcp
from vault.server.refusal_log import Refusals


def token_id(token):
    """Return the id of a token from its text."""
    return "tok_" + token.removeprefix("cv_").partition("_")[0]


def listener(app, **changes):
    token = token_id(app.token(Role.RECORDER))
    return {"listen": "127.0.0.1:0", "tenant": TENANTS[0], "token": token, **changes}


@asynccontextmanager
async def listening(app, **sections):
    """Listen beside a served vault and yield the ports."""
    config = app.config.model_copy(update={"streams": StreamSettings.model_validate(sections)})
    connections = connections_of(config.server, app.vault.metrics, clock=app.vault.clock)
    intake = Intake(bound=config.journal.max_undurable_bytes, undurable=lambda: app.vault.journal.undurable)
    async with (
        connections.watched(),
        tcp.listening(app.vault, config, connections, intake, refusals=Refusals(), certified=[]) as ports,
    ):
        yield ports


async def send(port, *pieces, **options):
    """Send pieces over one connection, close it, and return once the vault has closed too: all is durable then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    if options.get("ssl") is None:
        writer.write_eof()
    else:
        writer.close()  # TLS has no half-closed connection
        await writer.wait_closed()
    answer = await reader.read()
    writer.close()
    return answer


async def break_off(writer):
    """End a connection as a crash of the machine does: with a reset, and without what was not yet sent."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
