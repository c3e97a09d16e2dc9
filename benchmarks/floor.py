"""The floor under ingest: aiohttp on uvloop receives, AES-256-GCM seals each piece, and the result is thrown away."""

import asyncio
import os
import sys
from pathlib import Path

import uvloop
from aiohttp import web
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


async def receive(request):
    seal = AESGCM(os.urandom(32)).encrypt
    counter = 0
    while piece := await request.content.readany():
        counter += 1
        seal(counter.to_bytes(12, "big"), piece, None)
    return web.json_response({"pieces": counter}, status=201)


async def main(port_file):
    app = web.Application(client_max_size=1 << 30)
    app.router.add_put("/v1/ingest/{tenant}/{call_key}", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    Path(port_file).write_text(str(runner.addresses[0][1]))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
